"""A model in HuggingFace's format, as a checkpoint of this project."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from tokenizers import Tokenizer

from src.errors import InputError
from src.extras.huggingface.adapter import Adapter, Imported
from src.extras.huggingface.bert import BERTAdapter, BERTClassifierAdapter, BiEncoderAdapter
from src.extras.huggingface.files import TARGET_TOKENIZER, read_json, read_tensors
from src.extras.huggingface.gpt2 import GPT2Adapter
from src.extras.huggingface.longformer import LongformerAdapter
from src.extras.huggingface.marian import MarianAdapter
from src.extras.huggingface.settings import list_setting, setting
from src.extras.huggingface.tokenizer_files import read_tokenizer, special_token
from src.tokenization import bert_tokens, require_token, vocabulary_size

ADAPTERS: dict[str, Adapter] = {
    adapter.architecture: adapter
    for adapter in (
        GPT2Adapter(),
        BERTAdapter(),
        BERTClassifierAdapter(),
        BiEncoderAdapter(),
        LongformerAdapter(),
        MarianAdapter(),
    )
}


class Checkpoint(NamedTuple):
    """What a folder of HuggingFace's holds.

    Args:
        content: to be saved: see `src.checkpoint`.
        layer: a configuration that lets a run start from it, without the paths of the files.
        notes: what its user must know, a line each.
    """

    content: dict[str, Any]
    layer: dict[str, Any]
    notes: list[str]


class _Tokenizers(NamedTuple):
    source: Tokenizer
    target: Tokenizer
    special: dict[str, str]


def import_folder(folder: Path, name: str) -> Checkpoint:
    """Read a folder, whole and without running any code.

    Args:
        folder: with ``config.json``, weights and tokenizer.
        name: of the model, for people.

    Raises:
        InputError: something is missing or damaged, or has no counterpart here.
    """
    theirs = read_json(folder / "config.json", needed=True)
    tensors = read_tensors(folder)
    adapter = _adapter(theirs, set(tensors))
    imported = adapter.read(theirs, tensors)
    tokenizers = _tokenizers(adapter, theirs, folder)
    notes = [f"it has no {part}: that part has random weights" for part in imported.untrained]
    notes += _check_sizes(imported, tokenizers)
    if "eos_token" in tokenizers.special and (more := list_setting(theirs, "eos_token_id", int)[1:]):
        notes.append(f"config.json has more than one eos_token_id: the first ends a text here, {more} do not")
    content: dict[str, Any] = {
        "architecture": adapter.architecture,
        "model_config": asdict(imported.config),
        "tokenizer": tokenizers.target.to_str(),
        "special_tokens": tokenizers.special,
        "state_dict": {f"model.{name}": tensor for name, tensor in imported.weights.items()},
        "imported_from": name,
        "untrained": list(imported.untrained),
        # what Lightning needs of a file to evaluate it
        "pytorch-lightning_version": version("lightning"),
        "epoch": 0,
        "global_step": 0,
    }
    if adapter.architecture == "transformer":
        content["source_tokenizer"] = tokenizers.source.to_str()
    if adapter.architecture == "bert_classifier":
        if names := _label_names(theirs, imported.config.n_labels):
            content["label_names"] = names
        else:
            last = imported.config.n_labels - 1
            notes.append(f"config.json names no labels from 0 to {last} by id2label: they are known by their numbers")
    layer = _layer(content)
    return Checkpoint({**content, "config": yaml.safe_dump(layer)}, layer, notes)


def _adapter(theirs: dict[str, Any], names: set[str]) -> Adapter:
    """What reads a model: by the class in ``architectures``, or where that is not set by the names of the tensors."""
    model_type = setting(theirs, "model_type", str, None)
    known = {model_class: adapter for adapter in ADAPTERS.values() for model_class in adapter.reads}
    classes = [name for name, adapter in known.items() if adapter.table.model_type == model_type]
    model_class = next(iter(list_setting(theirs, "architectures", str)), None)
    if not classes or model_class not in (*classes, None):
        what = f"a {model_class} (model_type {model_type!r})" if model_class else f"model_type {model_type!r}"
        raise InputError(f"config.json describes {what}: what can be read is {', '.join(classes or known)}")
    if model_class is None:
        is_classifier = model_type == "bert" and "classifier.weight" in names
        model_class = "BertForSequenceClassification" if is_classifier else classes[0]
    return known[model_class]


def _label_names(theirs: dict[str, Any], n_labels: int) -> list[str] | None:
    """The names of the labels in their order; None unless ``id2label`` has one of its own for each."""
    names = setting(theirs, "id2label", dict, {})
    in_order = [name for i in range(n_labels) if isinstance(name := names.get(str(i)), str)]
    return in_order if len(names) == len(set(in_order)) == n_labels else None


def _tokenizers(adapter: Adapter, theirs: dict[str, Any], folder: Path) -> _Tokenizers:
    tokenizer = read_tokenizer(folder, adapter.table.model_type)
    if adapter.table.model_type in ("bert", "longformer"):
        return _Tokenizers(tokenizer, tokenizer, bert_tokens(tokenizer))
    if adapter.table.model_type == "gpt2":
        end = _token(tokenizer, theirs, "eos_token_id", default=50256)
        unknown = special_token(folder, "unk_token")
        special = {"eos_token": end}
        # GPT-2 names its end token for it
        if unknown not in (None, end) and tokenizer.token_to_id(unknown) is not None:
            special["unk_token"] = unknown
        return _Tokenizers(tokenizer, tokenizer, special)
    target = tokenizer
    if (folder / TARGET_TOKENIZER).is_dir():
        target = read_tokenizer(folder / TARGET_TOKENIZER, adapter.table.model_type)
    names = {"eos_token": "eos_token_id", "decoder_start_token": "decoder_start_token_id"}
    special = {name: _token(target, theirs, key) for name, key in names.items()}
    require_token(tokenizer, special["eos_token"], "eos_token")
    return _Tokenizers(tokenizer, target, special)


def _token(tokenizer: Tokenizer, theirs: dict[str, Any], key: str, default: int | None = None) -> str:
    """The token whose id a key holds: the first, where it holds several."""
    i = next(iter(list_setting(theirs, key, int)), default)
    if i is None:
        raise InputError(f"config.json has no {key}, which says what begins or ends a text")
    token = tokenizer.id_to_token(i) if i >= 0 else None
    if token is None:
        raise InputError(f"config.json has {key} {i}, which is no token of the tokenizer")
    return token


def _check_sizes(imported: Imported, tokenizers: _Tokenizers) -> list[str]:
    """Refuse tokens without an embedding; embeddings without a token are worth a note."""
    notes = []
    sizes = {"vocab_size": tokenizers.target, "source_vocab_size": tokenizers.source}
    for field, tokenizer in sizes.items():
        rows, ids = getattr(imported.config, field, None), vocabulary_size(tokenizer)
        if rows is not None and ids > rows:
            raise InputError(
                f"the tokenizer has {ids:,} ids, but there are {rows:,} embeddings: they do not belong together"
            )
        if rows is not None and ids < rows:
            notes.append(f"{field} is {rows:,}, its tokenizer has {ids:,} ids: it can be used, but not trained on")
    return notes


def _layer(content: dict[str, Any]) -> dict[str, Any]:
    """The shape of the network, less what comes from the data, and the end token that the data must use."""
    from_data = ("vocab_size", "source_vocab_size", "n_labels")
    config = {name: value for name, value in content["model_config"].items() if name not in from_data}
    layer: dict[str, Any] = {"model": {"init_args": {"config": config}}, "data": {"init_args": {}}}
    special = content["special_tokens"]
    if content["architecture"] in ("gpt", "transformer"):
        layer["data"]["init_args"]["end_token"] = special["eos_token"]
    if content["architecture"] == "transformer":
        layer["data"]["init_args"]["start_token"] = special["decoder_start_token"]
    return layer
