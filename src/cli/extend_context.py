"""extend-context: a longer context for a trained network; of a BERT a Longformer (Beltagy et al. 2020, section 5)."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from src.architectures import architectures
from src.checkpoint import REQUIRED_KEYS, read_checkpoint
from src.cli.parser import VerbParser, positive
from src.cli.starting_point import check_output, save_starting_point
from src.errors import InputError
from src.models import BERTConfig, LongformerConfig

Weights = dict[str, Tensor]


def parser() -> VerbParser:
    """The options of `extend-context`."""
    options = VerbParser(prog="python -m src extend-context", description=__doc__)
    options.add_argument("--checkpoint", required=True, metavar="PATH", help="of a BERT, a Longformer or a GPT")
    options.add_argument("--max-seq-len", type=positive, required=True, metavar="N", help="the new longest context")
    options.add_argument(
        "--window", type=positive, metavar="N", help="tokens a side; of a BERT by default half its old context"
    )
    options.add_argument("--output", required=True, type=Path, metavar="PATH", help="the checkpoint to write: x.ckpt")
    return options


def extend(checkpoint: dict[str, Any], max_seq_len: int, window: int | None) -> dict[str, Any]:
    """A checkpoint of a longer context: learned positions are copied, one stretch of them after the other.

    So each token finds its neighbours at the distances that it knows, but for those across a seam, which further
    training mends. A Longformer's global projections start as those of its windows.

    Raises:
        InputError: the network has no longer context, or its context is this long already.
    """
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
        settings |= {"attention": "sliding_window", "window": old.max_seq_len // 2, "global_tokens": [0]}
        settings = {field.name: settings[field.name] for field in fields(LongformerConfig)}
        weights = _with_global_projections(weights, old)
    if window is not None:
        settings |= {"attention": "sliding_window", "window": window}
    weights = {n: _copied(t, max_seq_len) if n.endswith("position_embedding.weight") else t for n, t in weights.items()}
    kept = {key: checkpoint[key] for key in (*REQUIRED_KEYS, "untrained") if key in checkpoint}
    return {
        **kept,
        "architecture": after,
        "model_config": settings,
        "state_dict": {f"model.{name}": tensor for name, tensor in weights.items()},
        # what Lightning needs of a file to evaluate it
        **{key: checkpoint[key] for key in ("pytorch-lightning_version", "epoch", "global_step") if key in checkpoint},
    }


def _copied(table: Tensor, n: int) -> Tensor:
    """The first ``n`` rows of a table that is repeated without an end."""
    return table[torch.arange(n) % len(table)]


def _with_global_projections(weights: Weights, config: BERTConfig) -> Weights:
    """A BERT's weights as a Longformer's: without pooler and next sentences, with what global tokens look by."""
    found = {n: t for n, t in weights.items() if not n.startswith(("encoder.pooler.", "next_sentence."))}
    head_dim = config.d_model // config.n_heads
    for name, tensor in weights.items():
        prefix, qkv, part = name.rpartition("qkv.")
        if qkv:
            q, k, v = tensor.unflatten(0, (config.n_heads, 3, head_dim)).unbind(1)
            found[f"{prefix}global_q.{part}"] = q.flatten(0, 1)
            found[f"{prefix}global_kv.{part}"] = torch.stack([k, v], 1).flatten(0, 2)
    return found


def main(arguments: list[str]) -> None:
    """Write the checkpoint, its tokenizer, and a configuration to lay over one that is to train on from it.

    Raises:
        InputError: a bad option or checkpoint, or a context that cannot be extended.
    """
    options = parser().parse_args(arguments[1:])
    check_output(options.output)
    checkpoint = read_checkpoint(options.checkpoint)
    content = extend(checkpoint, options.max_seq_len, options.window)
    config, entry = content["model_config"], architectures()[content["architecture"]]
    data = {"seq_len": options.max_seq_len}
    if entry.data == "LMDataModule":
        data["end_token"] = content["special_tokens"]["eos_token"]
    shape = {name: value for name, value in config.items() if name != "vocab_size"}
    layer = {
        "model": {"class_path": entry.task, "init_args": {"config": shape}},
        "data": {"class_path": entry.data, "init_args": data},
    }
    content["config"] = yaml.safe_dump(layer)
    save_starting_point(content, layer, options.output)
    print(f"wrote {options.output}: a {content['architecture']} of {options.max_seq_len:,} positions")
    if config.get("positions", "learned") == "learned":
        print("its position embeddings are copies of the old ones: train on before you use it")
    else:
        print(f"its positions are {config['positions']}: no weight is new, only the limit")
    print(
        f"to train from it, lay {options.output.with_suffix('.yaml')} over a configuration: --config ... --config ..."
    )
