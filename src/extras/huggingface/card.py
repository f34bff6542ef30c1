"""The model card: what a folder holds, how to load it, and how it was trained."""

from typing import Any

import yaml

from src.extras.huggingface.adapter import Exported
from src.extras.huggingface.hub import TARGET_TOKENIZER

# HuggingFace's class -> the class that loads any of its kind, and the task that the hub shows
KINDS = {
    "GPT2LMHeadModel": ("AutoModelForCausalLM", "text-generation"),
    "BertForPreTraining": ("AutoModelForPreTraining", "fill-mask"),
    "BertForMaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
    "BertForNextSentencePrediction": ("AutoModelForNextSentencePrediction", "text-classification"),
    "BertModel": ("AutoModel", "feature-extraction"),
    "BertForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification"),
    "LongformerForMaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
    "LongformerModel": ("AutoModel", "feature-extraction"),
    "MarianMTModel": ("AutoModelForSeq2SeqLM", "translation"),
}
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

TRANSLATION = """
The tokenizer puts the end token behind a source, and is not HuggingFace's `MarianTokenizer`.{target}
`generate` divides a hypothesis' log-probability by `length ** length_penalty`, where the network's own search divides
by `((5 + length) / 6) ** length_penalty`; with a `length_penalty` of 0 the two are the same.
"""
OWN_TARGET = f"""
The target has a tokenizer of its own, which decodes what the model generates:
`AutoTokenizer.from_pretrained(FOLDER, subfolder="{TARGET_TOKENIZER}")`."""
NO_BIASES = "\nThe network was trained without biases, which GPT-2 has: here they are zeros.\n"
GLOBAL = """
Global attention is not in its configuration: this network was trained with it at the positions {positions} of each
input. Give `global_attention_mask` with a 1 there.
"""


def model_card(checkpoint: dict[str, Any], exported: Exported, config: Any) -> str:
    """Write the text of ``README.md``."""
    kind = exported.config["architectures"][0]
    auto, task = KINDS[kind]
    n = sum(tensor.numel() for tensor in exported.tensors.values())
    shape = ", ".join(f"{name} {value}" for name, value in checkpoint["model_config"].items() if value is not None)
    notes = ""
    if kind == "MarianMTModel":
        own = checkpoint["source_tokenizer"] != checkpoint["tokenizer"]
        notes = TRANSLATION.format(target=OWN_TARGET if own else "")
    elif kind.startswith("Longformer"):
        notes = GLOBAL.format(positions=config.global_tokens)
    elif not getattr(config, "bias", True):
        notes = NO_BIASES
    summary = f"A `{kind}` of {n:,} numbers: {shape}."
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
