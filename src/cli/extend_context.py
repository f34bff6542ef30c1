"""extend-context: a longer context for a trained network; of a BERT a Longformer (Beltagy et al. 2020, section 5)."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from src.cli.verb import Positive
from src.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from src.models import BERTConfig


def extend_context(checkpoint: str, max_seq_len: Positive, output: Path, window: Positive | None = None) -> None:
    """Give a trained BERT, Longformer or GPT a longer context; a BERT becomes a Longformer (Beltagy et al. 2020, 5).

    Writes the checkpoint, its tokenizer, and config overrides that train on from it.

    Args:
        checkpoint: of a BERT, a Longformer or a GPT
        max_seq_len: the new longest context
        output: a new checkpoint: x.ckpt
        window: tokens a side; of a BERT by default half its old context
    """
    # with torch, for which help does not wait
    from src.architectures import architectures
    from src.checkpoint import read_checkpoint
    from src.cli.config_overrides import check_starting_point, save_starting_point

    check_starting_point(output)
    content = extend(read_checkpoint(checkpoint), max_seq_len, window)
    config, entry = content["model_config"], architectures()[content["architecture"]]
    data = {"seq_len": max_seq_len}
    if entry.data == "LMDataModule":
        data["end_token"] = content["special_tokens"]["eos_token"]
    shape = {name: value for name, value in config.items() if name != "vocab_size"}
    overrides = {
        "model": {"class_path": entry.task, "init_args": {"config": shape}},
        "data": {"class_path": entry.data, "init_args": data},
    }
    content["config"] = yaml.safe_dump(overrides)
    save_starting_point(content, overrides, output)
    print(f"wrote {output}: a {content['architecture']} of {max_seq_len:,} positions")
    if config.get("positions", "learned") == "learned":
        print("its position embeddings are copies of the old ones: train on before you use it")
    else:
        print(f"its positions are {config['positions']}: no weight is new, only the limit")
    print(f"to train from it, lay {output.with_suffix('.yaml')} over a configuration: --config ... --config ...")


def extend(checkpoint: dict[str, Any], max_seq_len: int, window: int | None) -> dict[str, Any]:
    """Make a checkpoint of a longer context: learned positions are copied, one stretch of them after the other.

    So each token finds its neighbours at the distances that it knows, but for those across a seam, which further
    training mends. A Longformer's global projections start as those of its windows. A sentence encoder stays one, but
    reads as many tokens as there are positions.
    """
    import torch

    from src.architectures import architectures
    from src.checkpoint import without_training
    from src.models import LongformerConfig

    before = checkpoint["architecture"]
    after = architectures()[before].extended
    if after is None:
        known = ", ".join(name for name, entry in architectures().items() if entry.extended)
        raise InputError(f"the checkpoint holds a {before}: only {known} can be given a longer context")
    old = architectures()[before].config(**checkpoint["model_config"])
    if max_seq_len <= old.max_seq_len:
        raise InputError(f"--max-seq-len {max_seq_len} is not more than the {old.max_seq_len} positions that there are")
    settings: dict[str, Any] = {**asdict(old), "max_seq_len": max_seq_len}
    weights = {name.removeprefix("model."): tensor for name, tensor in checkpoint["state_dict"].items()}
    if after != before:  # a BERT becomes a Longformer
        for name, plain in (("window", None), ("value_residual", False)):
            if settings[name] != plain:
                raise InputError(
                    f"the BERT has {name} {settings[name]}, with which no Longformer reads short texts as it does: "
                    "extend one without"
                )
        settings |= {"attention": "sliding_window", "window": old.max_seq_len // 2, "global_tokens": [0]}
        settings["rope_local_base"] = None  # of blocks with a window, which none had
        settings = {field.name: settings[field.name] for field in fields(LongformerConfig)}
        weights = _with_global_projections(weights, old)
    if window is not None:
        settings |= {"attention": "sliding_window", "window": window}
    try:
        architectures()[after].config(**settings)
    except ValueError as error:
        raise InputError(f"a {after} of {max_seq_len} positions cannot be made of the checkpoint: {error}") from error
    rows = torch.arange(max_seq_len) % old.max_seq_len
    weights = {n: t[rows] if n.endswith("position_embedding.weight") else t for n, t in weights.items()}
    found = {
        **without_training(checkpoint),
        "architecture": after,
        "model_config": settings,
        "state_dict": {f"model.{name}": tensor for name, tensor in weights.items()},
    }
    if "sentence_encoder" in checkpoint:
        found["sentence_encoder"] = {**checkpoint["sentence_encoder"], "max_length": None}
    return found


def _with_global_projections(weights: dict[str, "Tensor"], config: "BERTConfig") -> dict[str, "Tensor"]:
    """Turn a BERT's weights into a Longformer's: without pooler and next-sentence head, with global projections."""

    found = {n: t for n, t in weights.items() if not n.startswith(("encoder.pooler.", "next_sentence."))}
    n_kv_heads = config.n_kv_heads or config.n_heads
    n_rows = config.n_heads // n_kv_heads + 2  # of a group: see `src.nn.attention`
    for name, tensor in weights.items():
        prefix, qkv, part = name.rpartition("qkv.")
        if qkv:
            q, kv = tensor.unflatten(0, (n_kv_heads, n_rows, config.head_width)).split([n_rows - 2, 2], 1)
            found[f"{prefix}global_q.{part}"] = q.flatten(0, 2)
            found[f"{prefix}global_kv.{part}"] = kv.flatten(0, 2)
    return found
