"""A checkpoint of this project, as a folder in HuggingFace's format."""

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer

from src.architectures import architectures
from src.errors import InputError
from src.extras.huggingface.adapter import Exported
from src.extras.huggingface.card import model_card
from src.extras.huggingface.files import TARGET_TOKENIZER
from src.extras.huggingface.importing import ADAPTERS
from src.extras.huggingface.tokenizer_files import with_bert_template, with_end, write_json, write_tokenizer
from src.tokenization import bert_ids, require_token

Settings = dict[str, Any]


def export(checkpoint: dict[str, Any], folder: Path) -> Exported:
    """Write a folder that ``from_pretrained`` of `transformers` reads, whole or not at all.

    Args:
        checkpoint: as it was read.
        folder: new, or empty.

    Raises:
        InputError: the network has no counterpart, or the folder cannot be written.
    """
    _check_folder(folder)
    if checkpoint["architecture"] not in ADAPTERS:
        raise InputError(
            f"a {checkpoint['architecture']} has no counterpart: what is exported is {', '.join(ADAPTERS)}"
        )
    adapter = ADAPTERS[checkpoint["architecture"]]
    config = architectures()[checkpoint["architecture"]].config(**checkpoint["model_config"])
    weights = {name.removeprefix("model."): tensor for name, tensor in checkpoint["state_dict"].items()}
    exported = adapter.write(config, weights, tuple(checkpoint.get("untrained", ())))
    tokens = _TOKENS[adapter.table.model_type](checkpoint)
    exported = adapter.with_tokens(exported, tokens)
    aside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
    try:
        aside.mkdir(parents=True)
        write_json(aside / "config.json", exported.config)
        save_file(exported.tensors, aside / "model.safetensors", metadata={"format": "pt"})
        _WRITERS[adapter.table.model_type](checkpoint, config, aside)
        if adapter.table.model_type in ("gpt2", "marian"):
            write_json(aside / "generation_config.json", tokens | _search(adapter.table.model_type, config, tokens))
        card = model_card(checkpoint, exported, config)
        (aside / "README.md").write_text(card, encoding="utf-8")
        aside.replace(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return exported


def _check_folder(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} is there already and not empty: name another folder, or remove it")


# ---- what config.json says of tokens


def _gpt_tokens(checkpoint: Settings) -> Settings:
    tokenizer = Tokenizer.from_str(checkpoint["tokenizer"])
    end = require_token(tokenizer, checkpoint["special_tokens"]["eos_token"], "eos_token")
    return {"bos_token_id": end, "eos_token_id": end}


def _bert_tokens(checkpoint: Settings) -> Settings:
    tokenizer = Tokenizer.from_str(checkpoint["tokenizer"])
    tokens = {"pad_token_id": require_token(tokenizer, checkpoint["special_tokens"]["pad_token"], "pad_token")}
    if checkpoint["architecture"] != "bert_classifier":
        return tokens
    n_labels = checkpoint["model_config"]["n_labels"]
    names = checkpoint.get("label_names") or [f"LABEL_{i}" for i in range(n_labels)]
    ids = {name: i for i, name in enumerate(names)}
    return {**tokens, "id2label": {str(i): name for name, i in ids.items()}, "label2id": ids}


def _longformer_tokens(checkpoint: Settings) -> Settings:
    ids = bert_ids(Tokenizer.from_str(checkpoint["tokenizer"]))
    names = {"pad_token_id": "pad", "bos_token_id": "cls", "eos_token_id": "sep", "sep_token_id": "sep"}
    return {key: ids[f"{name}_token"] for key, name in names.items()}


def _marian_tokens(checkpoint: Settings) -> Settings:
    tokenizer, special = Tokenizer.from_str(checkpoint["tokenizer"]), checkpoint["special_tokens"]
    end = require_token(tokenizer, special["eos_token"], "eos_token")
    start = require_token(tokenizer, special["decoder_start_token"], "decoder_start_token")
    # HuggingFace pads both sides with one id, which must be one of both
    source_size = checkpoint["model_config"]["source_vocab_size"] or end + 1
    pad = end if end < source_size else 0
    tokens = {"eos_token_id": end, "decoder_start_token_id": start, "pad_token_id": pad}
    return {**tokens, "bos_token_id": None, "forced_eos_token_id": None}


_TOKENS = {
    "gpt2": _gpt_tokens,
    "bert": _bert_tokens,
    "longformer": _longformer_tokens,
    "marian": _marian_tokens,
}


def _search(model_type: str, config: Any, tokens: Settings) -> Settings:
    """How ``generate`` pads, and how it searches if nothing else is said."""
    if model_type == "gpt2":
        return {"pad_token_id": tokens["eos_token_id"]}
    return {"num_beams": 4, "length_penalty": 0.6, "early_stopping": "never", "max_length": config.max_seq_len}


# ---- tokenizers


def _write_gpt_tokenizer(checkpoint: Settings, config: Any, folder: Path) -> None:
    special = checkpoint["special_tokens"]
    special = {**special, "bos_token": special["eos_token"], "pad_token": special["eos_token"]}
    settings = {
        "model_max_length": config.max_seq_len,
        "padding_side": "left",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    write_tokenizer(Tokenizer.from_str(checkpoint["tokenizer"]), special, settings, folder)


def _write_bert_tokenizer(checkpoint: Settings, config: Any, folder: Path) -> None:
    tokenizer, special = Tokenizer.from_str(checkpoint["tokenizer"]), checkpoint["special_tokens"]
    if tokenizer.post_processor is None:
        tokenizer = with_bert_template(tokenizer, special)
    names = ["input_ids", "token_type_ids", "attention_mask"]
    write_tokenizer(tokenizer, special, {"model_max_length": config.max_seq_len, "model_input_names": names}, folder)


def _write_marian_tokenizers(checkpoint: Settings, config: Any, folder: Path) -> None:
    """The source's, and in a folder below it the target's, if that is another one."""
    end = checkpoint["special_tokens"]["eos_token"]
    special = {"eos_token": end, "pad_token": end}
    settings = {"model_max_length": config.max_seq_len, "model_input_names": ["input_ids", "attention_mask"]}
    names = {"source_tokenizer": folder}
    if checkpoint["source_tokenizer"] != checkpoint["tokenizer"]:
        names["tokenizer"] = folder / TARGET_TOKENIZER
    for name, place in names.items():
        place.mkdir(exist_ok=True)
        write_tokenizer(with_end(Tokenizer.from_str(checkpoint[name]), end), special, settings, place)


_WRITERS = {
    "gpt2": _write_gpt_tokenizer,
    "bert": _write_bert_tokenizer,
    "longformer": _write_bert_tokenizer,
    "marian": _write_marian_tokenizers,
}
