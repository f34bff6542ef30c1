"""A checkpoint of this project, as a folder in HuggingFace's format with a model card."""

import re
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import save_file

from src.architectures import architectures
from src.atomic import new_folder
from src.extras.huggingface.adapter import Adapter, Exported
from src.extras.huggingface.adapters import adapter_of
from src.extras.huggingface.json_files import CONFIG, GENERATION, write_json
from src.extras.huggingface.sentence_encoder import write_pooling

# of the machine that trained it, and of no use to anybody else
PRIVATE = ("cache_dir", "default_root_dir", "dirpath", "ckpt_path", "pretrained")

CARD = """---
{metadata}
---

# {name}

{summary}

```python
{usage}
```
{notes}
## Intended use

{use} Written in the format of HuggingFace's `transformers`{programs}. What it was trained on
limits what it can be used for; nothing but the metrics below was measured.

## Training

{training}
"""
TRANSFORMERS = """from transformers import AutoTokenizer, {auto}

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = {auto}.from_pretrained(FOLDER)"""
SENTENCES = """from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer(FOLDER).encode(["a text"])"""
SCORES = """from sentence_transformers import CrossEncoder

scores = CrossEncoder(FOLDER).predict([("a query", "a passage")])"""
# task of the hub -> what a model of it does
USES = {
    "text-generation": "Writes on from a text.",
    "translation": "Translates a sentence.",
    "fill-mask": "Predicts hidden words, or is the start of fine-tuning.",
    "text-classification": "Chooses one of its labels for a text.",
    "text-ranking": "Scores how well a passage answers a query: higher is better.",
    "feature-extraction": "Makes a vector of each token; the start of fine-tuning.",
    "sentence-similarity": "Makes a vector of a text, to be compared with others by their cosine.",
}


def export(checkpoint: dict[str, Any], folder: Path) -> Exported:
    """Write a folder that ``from_pretrained`` of `transformers` reads, with a model card; all of it or nothing.

    Args:
        checkpoint: as it was read.
        folder: new, or empty.
    """
    architecture = checkpoint["architecture"]
    config = architectures()[architecture].config(**checkpoint["model_config"])
    adapter = adapter_of(architecture, config)
    weights = {name.removeprefix("model."): tensor for name, tensor in checkpoint["state_dict"].items()}
    tokens = adapter.config_tokens(checkpoint)
    exported = adapter.write(config, weights, tokens, tuple(checkpoint.get("untrained", ())))
    card = model_card(checkpoint, exported, adapter)
    with new_folder(folder) as aside:
        write_json(aside / CONFIG, exported.config)
        try:
            save_file(exported.tensors, aside / "model.safetensors", metadata={"format": "pt"})
        except SafetensorError as error:  # also of a full disk
            raise OSError(error) from error
        adapter.write_tokenizers(checkpoint, config.max_seq_len, aside)
        if pooling := adapter.pooling(checkpoint):
            write_pooling(pooling, config.d_model, config.max_seq_len, aside)
        if generation := adapter.generation(config, tokens):
            write_json(aside / GENERATION, tokens | generation)
        (aside / "README.md").write_text(card, encoding="utf-8")
    return exported


def model_card(checkpoint: dict[str, Any], exported: Exported, adapter: Adapter) -> str:
    """Write the text of ``README.md``: what the folder holds, what for, how to load it, and how it was trained."""
    kind = exported.config["architectures"][0]
    auto, task = adapter.classes[kind]
    usage, library = TRANSFORMERS.format(auto=auto), "transformers"
    if adapter.pooling(checkpoint):
        usage, library, task = SENTENCES, "sentence-transformers", "sentence-similarity"
    elif checkpoint["model_config"].get("n_labels") == 1:
        usage, library, task = SCORES, "sentence-transformers", "text-ranking"
    n = sum(tensor.numel() for tensor in exported.tensors.values())
    shape = ", ".join(f"{name} {value}" for name, value in checkpoint["model_config"].items() if value is not None)
    notes = adapter.note(checkpoint)
    if exported.left_out:
        notes += f"\nThe network was trained with {' and '.join(exported.left_out)}, which a `{kind}` has not.\n"
    return CARD.format(
        metadata=yaml.safe_dump(_metadata(checkpoint, task, library), sort_keys=False).rstrip(),
        name=kind,
        summary=f"A `{kind}` of {n:,} numbers: {shape}.",
        usage=usage,
        notes=notes,
        use=USES[task],
        programs="".join(f", and tested with {' and '.join(adapter.programs)}" for _ in adapter.programs[:1]),
        training=_training(checkpoint),
    )


def _metadata(checkpoint: dict[str, Any], task: str, library: str) -> dict[str, Any]:
    """Make what the hub sorts models by, as far as the run's configuration says it: languages and data."""
    data = ((yaml.safe_load(checkpoint["config"]) or {}).get("data") or {}).get("init_args") or {}
    found: dict[str, Any] = {"library_name": library, "pipeline_tag": task}
    if languages := [data[key] for key in ("source_language", "target_language") if data.get(key)]:
        found["language"] = languages
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source := str(data.get("source"))) and not Path(source).exists():
        found["datasets"] = [source]
    return found


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
