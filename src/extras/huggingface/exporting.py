"""A checkpoint of this project, as a folder in HuggingFace's format."""

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from src.architectures import architectures
from src.errors import InputError
from src.extras.huggingface.adapter import Exported
from src.extras.huggingface.card import model_card
from src.extras.huggingface.importing import ADAPTERS
from src.extras.huggingface.json_files import CONFIG, write_json


def export(checkpoint: dict[str, Any], folder: Path) -> Exported:
    """Write a folder that ``from_pretrained`` of `transformers` reads, whole or not at all.

    Args:
        checkpoint: as it was read.
        folder: new, or empty.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} is there already and not empty: name another folder, or remove it")
    architecture = checkpoint["architecture"]
    if architecture not in ADAPTERS:
        raise InputError(f"HuggingFace has no counterpart of a {architecture}: only {', '.join(ADAPTERS)} have one")
    adapter = ADAPTERS[architecture]
    config = architectures()[architecture].config(**checkpoint["model_config"])
    weights = {name.removeprefix("model."): tensor for name, tensor in checkpoint["state_dict"].items()}
    tokens = adapter.config_tokens(checkpoint)
    exported = adapter.write(config, weights, tokens, tuple(checkpoint.get("untrained", ())))
    aside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
    try:
        aside.mkdir(parents=True)
        write_json(aside / CONFIG, exported.config)
        save_file(exported.tensors, aside / "model.safetensors", metadata={"format": "pt"})
        adapter.write_tokenizers(checkpoint, config.max_seq_len, aside)
        if generation := adapter.generation(config, tokens):
            write_json(aside / "generation_config.json", tokens | generation)
        (aside / "README.md").write_text(model_card(checkpoint, exported, config), encoding="utf-8")
        aside.replace(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return exported
