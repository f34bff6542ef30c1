"""A checkpoint of this project, as a folder in HuggingFace's format with a model card."""

import shutil
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file

from src.architectures import architectures
from src.atomic import remove, replace_folder
from src.errors import InputError
from src.extras.huggingface.adapter import Adapter, Exported
from src.extras.huggingface.importing import ADAPTERS
from src.extras.huggingface.json_files import CONFIG, write_json

# of the machine that trained it, and of no use to anybody else
PRIVATE = ("cache_dir", "default_root_dir", "dirpath", "ckpt_path", "pretrained")

CARD = """---
library_name: transformers
pipeline_tag: {task}
---

# {name}

{summary}

```python
from transformers import AutoTokenizer, {auto}

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = {auto}.from_pretrained(FOLDER)
```
{notes}
## Training

{training}
"""


def export(checkpoint: dict[str, Any], folder: Path) -> Exported:
    """Write a folder that ``from_pretrained`` of `transformers` reads, with a model card; all of it or nothing.

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
    card = model_card(checkpoint, exported, adapter)
    aside = folder.with_name(f"{folder.name}.part")
    try:
        remove(aside)  # of a process that was killed
        aside.mkdir(parents=True)
        write_json(aside / CONFIG, exported.config)
        save_file(exported.tensors, aside / "model.safetensors", metadata={"format": "pt"})
        adapter.write_tokenizers(checkpoint, config.max_seq_len, aside)
        if generation := adapter.generation(config, tokens):
            write_json(aside / "generation_config.json", tokens | generation)
        (aside / "README.md").write_text(card, encoding="utf-8")
        replace_folder(aside, folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return exported


def model_card(checkpoint: dict[str, Any], exported: Exported, adapter: Adapter) -> str:
    """Write the text of ``README.md``: what the folder holds, how to load it, and how it was trained."""
    kind = exported.config["architectures"][0]
    auto, task = adapter.classes[kind]
    n = sum(tensor.numel() for tensor in exported.tensors.values())
    shape = ", ".join(f"{name} {value}" for name, value in checkpoint["model_config"].items() if value is not None)
    summary, notes = f"A `{kind}` of {n:,} numbers: {shape}.", adapter.note(checkpoint)
    return CARD.format(task=task, name=kind, summary=summary, auto=auto, notes=notes, training=_training(checkpoint))


def _training(checkpoint: dict[str, Any]) -> str:
    if "imported_from" in checkpoint:
        return f"None since its weights were taken from `{checkpoint['imported_from']}`."
    lines = [f"- {checkpoint['global_step']:,} optimizer steps"] if "global_step" in checkpoint else []
    for callback in checkpoint.get("callbacks", {}).values():
        if isinstance(callback, dict) and callback.get("monitor") and callback.get("current_score") is not None:
            lines.append(f"- {callback['monitor']} {float(callback['current_score']):.4f} when it was saved")
    settings = yaml.safe_dump(_public(yaml.safe_load(checkpoint["config"])), sort_keys=False).rstrip()
    return "\n".join([*lines, f"\nData and settings of the run:\n\n```yaml\n{settings}\n```"]).lstrip("\n")


def _public(value: Any) -> Any:
    """Copy a configuration without what is None, and without the paths of the machine that it ran on."""
    if isinstance(value, dict):
        kept = {key: _public(item) for key, item in value.items() if key not in PRIVATE and item is not None}
        return {key: item for key, item in kept.items() if item != {}}
    return [_public(item) for item in value] if isinstance(value, list) else value
