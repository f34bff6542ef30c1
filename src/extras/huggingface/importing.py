"""A model in HuggingFace's format, as a checkpoint of this project."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from tokenizers import Tokenizer

from src.architectures import architectures
from src.errors import InputError
from src.extras.huggingface.adapter import Adapter
from src.extras.huggingface.adapters import ADAPTERS
from src.extras.huggingface.hub import TARGET_TOKENIZER, read_tensors
from src.extras.huggingface.json_files import CONFIG, GENERATION, list_setting, read_json, setting
from src.extras.huggingface.sentence_encoder import read_pooling, score_note
from src.extras.huggingface.tokenizer_files import read_tokenizer
from src.tokenization import vocabulary_size

OTHER_NETWORKS = ("quantization_config", "per_layer_config")  # that make other networks of the same classes
WARMUP_STEPS = 50  # how long a run will be is not known yet


class Checkpoint(NamedTuple):
    """What a folder of HuggingFace's holds.

    Args:
        content: to be saved: see `src.checkpoint`.
        overrides: of a configuration, to let a run start from it, without the paths of the files.
        notes: what its user must know, a line each.
    """

    content: dict[str, Any]
    overrides: dict[str, Any]
    notes: list[str]


def import_folder(folder: Path, name: str) -> Checkpoint:
    """Read a folder as a whole and without running any code.

    Args:
        folder: with ``config.json``, weights and tokenizer.
        name: of the model, for people.
    """
    theirs = read_json(folder / CONFIG, needed=True)
    for key in OTHER_NETWORKS:
        if theirs.get(key):
            raise InputError(
                f"config.json has {key}: what can be read has its weights as they are, alike in all layers"
            )
    tensors = read_tensors(folder)
    adapter = _adapter(theirs, set(tensors))
    imported = adapter.read(theirs, tensors)
    source = target = read_tokenizer(folder, adapter.model_type)
    if (folder / TARGET_TOKENIZER).is_dir():
        target = read_tokenizer(folder / TARGET_TOKENIZER, adapter.model_type)
    special = adapter.special_tokens(theirs, folder, source, target)
    notes = [f"it has no {part}: that part has random weights" for part in imported.untrained]
    options = adapter.data_options(imported.config, special, target)
    notes += _check_sizes(imported.config, {"vocab_size": target, "source_vocab_size": source}, options)
    notes += _other_rows(folder, special, target)
    content: dict[str, Any] = {
        "architecture": adapter.architecture,
        "model_config": asdict(imported.config),
        "tokenizer": target.to_str(),
        "special_tokens": special,
        "state_dict": {f"model.{name}": tensor for name, tensor in imported.weights.items()},
        "imported_from": name,
        "untrained": list(imported.untrained),
        # what Lightning needs of a file to evaluate it
        "pytorch-lightning_version": version("lightning"),
        "epoch": 0,
        "global_step": 0,
    }
    if hasattr(imported.config, "source_vocab_size"):
        content["source_tokenizer"] = source.to_str()
    if n_labels := getattr(imported.config, "n_labels", None):
        if names := _label_names(theirs, n_labels):
            content["label_names"] = names
        else:
            last = n_labels - 1
            notes.append(f"config.json names no labels from 0 to {last} by id2label: they are known by their numbers")
        if n_labels == 1:
            notes += score_note(theirs, folder)
    elif architectures()[adapter.architecture].encoder and (
        pooling := read_pooling(folder, imported.config.max_seq_len)
    ):
        content["sentence_encoder"] = pooling
    overrides = _overrides(content, adapter.fine_tuning_lr, options)
    return Checkpoint({**content, "config": yaml.safe_dump(overrides)}, overrides, notes)


def _adapter(theirs: dict[str, Any], names: set[str]) -> Adapter:
    """Choose what reads a model: by the class in ``architectures``, or where that is not set by its tensors' names."""
    model_type = setting(theirs, "model_type", str, None)
    adapters = [adapter for formats in ADAPTERS.values() for adapter in formats if adapter.reads_back]
    known = {model_class: adapter for adapter in adapters for model_class in adapter.classes}
    classes = [name for name, adapter in known.items() if adapter.model_type == model_type]
    model_class = next(iter(list_setting(theirs, "architectures", str)), None)
    if not classes or model_class not in (*classes, None):
        what = f"a {model_class} (model_type {model_type!r})" if model_class else f"model_type {model_type!r}"
        raise InputError(f"config.json describes {what}: what can be read is {', '.join(classes or known)}")
    if model_class is None:
        is_classifier = any(name.startswith("classifier.") for name in names)
        model_class = next((name for name in classes if is_classifier == name.endswith("Classification")), classes[0])
    return known[model_class]


def _other_rows(folder: Path, special: dict[str, str], tokenizer: Tokenizer) -> list[str]:
    """Note where a text has other special tokens in `transformers` than here."""
    if "cls_token" in special and not tokenizer.num_special_tokens_to_add(is_pair=False):
        return [f"its tokenizer puts no {special['cls_token']} before a text: here it is put there"]
    if "eos_token" not in special:
        return []
    end, notes = tokenizer.token_to_id(special["eos_token"]), []
    for file in (CONFIG, GENERATION):
        ends = list_setting(read_json(folder / file), "eos_token_id", int, file)
        if more := [i for i in ends if i != end]:
            notes.append(f"{file} has {more} among its eos_token_id: here {end} alone ends a text")
    return notes


def _label_names(theirs: dict[str, Any], n_labels: int) -> list[str] | None:
    """List the names of the labels in their order; None unless ``id2label`` has one of its own for each."""
    names = setting(theirs, "id2label", dict, {})
    in_order = [name for i in range(n_labels) if isinstance(name := names.get(str(i)), str)]
    return in_order if len(names) == len(set(in_order)) == n_labels else None


def _check_sizes(config: Any, tokenizers: dict[str, Tokenizer], options: dict[str, Any]) -> list[str]:
    """Refuse tokens without an embedding; embeddings without a token are worth a note."""
    notes = []
    for field, tokenizer in tokenizers.items():
        rows, ids = getattr(config, field, None), vocabulary_size(tokenizer)
        if rows is not None and ids > rows:
            raise InputError(
                f"the tokenizer has {ids:,} ids, but there are {rows:,} embeddings: they do not belong together"
            )
        if rows is not None and ids < rows and "padded_vocab_size" not in options:
            notes.append(f"{field} is {rows:,}, its tokenizer has {ids:,} ids: it can be used, but not trained on")
    return notes


def _overrides(content: dict[str, Any], lr: float, options: dict[str, Any]) -> dict[str, Any]:
    """Make what a run needs that starts from a network: its shape, how it is fine-tuned, and what its data must be.

    Of its shape, what comes from the data is left out.
    """
    from_data = ("vocab_size", "source_vocab_size", "n_labels")
    config = {name: value for name, value in content["model_config"].items() if name not in from_data}
    special = content["special_tokens"]
    names = {"eos_token": "end_token", "decoder_start_token": "start_token"}
    data = {option: special[token] for token, option in names.items() if token in special}
    if "source_tokenizer" in content and "bos_token" in special:
        data["begin_token"] = special["bos_token"]
    data["max_length" if "source_tokenizer" in content else "seq_len"] = config["max_seq_len"]
    data |= options
    # of BERT's recipe (Devlin et al. 2018, appendix A.3, and its code), which warms up over a tenth of the steps
    optimizer = {"class_path": "AdamW", "init_args": {"lr": lr, "betas": [0.9, 0.999], "weight_decay": 0.01}}
    schedule = {"class_path": "Linear", "init_args": {"warmup_steps": WARMUP_STEPS}}
    model = {"config": config, "optimizer": optimizer, "schedule": schedule}
    return {"model": {"init_args": model}, "data": {"init_args": data}}
