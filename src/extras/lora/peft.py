"""An adapter as HuggingFace's peft has it: a folder with its settings as JSON, and its tensors."""

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from src.atomic import atomic_file, write_text
from src.errors import InputError
from src.extras.lora.layers import PARTS
from src.extras.lora.merging import adapted_layers, merge, unmerge

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OURS, THEIRS = "model.", "base_model.model."  # what the names of a network's tensors begin with
# settings of peft's by which an adapter is more than two matrices a layer
MORE = ("use_dora", "lora_bias", "rank_pattern", "alpha_pattern", "layer_replication", "fan_in_fan_out")


def write_adapter(checkpoint: dict[str, Any], path: Path, folder: Path) -> None:
    """Write the adapter of a checkpoint, and whatever else was trained: ``modules_to_save``.

    Args:
        checkpoint: as it was read from ``path``.
        path: which the errors name.
        folder: made if it is not there.
    """
    if "unmerged" not in checkpoint:
        raise InputError(f"checkpoint {path} has no adapter: its run was not given the callback LoRA")
    unmerge(checkpoint)
    state: dict[str, Tensor] = checkpoint["state_dict"]
    layers = adapted_layers(state)
    others = [f"{OURS}{name}" for name in checkpoint["trained"] if not name.endswith(PARTS)]
    names = [f"{layer}.{part}" for layer in layers for part in PARTS[:2]] + others
    rank = state[f"{layers[0]}.{PARTS[0]}"].shape[0]
    alpha = state[f"{layers[0]}.{PARTS[2]}"].item() * rank
    modules = dict.fromkeys(name.removeprefix(OURS).rpartition(".")[0] for name in others)
    settings = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "target_modules": [layer.removeprefix(OURS) for layer in layers],
        "modules_to_save": list(modules) or None,
        "bias": "none",
        "inference_mode": True,
    }
    tensors = {THEIRS + name.removeprefix(OURS): state[name].contiguous() for name in names}
    folder.mkdir(parents=True, exist_ok=True)
    from safetensors.torch import save

    base = {name: weight for name, weight in state.items() if not name.endswith(PARTS)}
    with atomic_file(folder / WEIGHTS) as file:
        file.write(save(tensors, {"format": "pt", "base": fingerprint(base, others)}))
    write_text(folder / CONFIG, json.dumps(settings, indent=2) + "\n")


def merge_adapter(checkpoint: dict[str, Any], path: Path, folder: Path) -> None:
    """Merge the adapter in a folder into the weights of a checkpoint, in place; ``path`` names it in errors."""
    settings, (tensors, base) = _settings(folder), _tensors(folder)
    state = checkpoint["state_dict"]
    scaling = settings["lora_alpha"] / settings["r"] ** (0.5 if settings.get("use_rslora") else 1)
    adapter: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        own = OURS + name.removeprefix(THEIRS)
        layer = next((own.removesuffix(f".{part}") for part in PARTS[:2] if own.endswith(f".{part}")), None)
        if (own if layer is None else f"{layer}.weight") not in state:
            raise InputError(f"{folder} has {name}, for which the network of {path} has no weight: name its own base")
        if layer is None:
            others[own] = tensor
        else:
            adapter |= {own: tensor, f"{layer}.{PARTS[2]}": torch.tensor(scaling)}
    if base is not None and base != fingerprint(state, others):
        raise InputError(
            f"{folder} was trained on other weights than those of {path}: name the checkpoint it began from"
        )
    for name, tensor in others.items():
        if tensor.shape != state[name].shape:
            raise InputError(f"{folder} has {tuple(tensor.shape)} for {name}, which is {tuple(state[name].shape)}")
    state.update(adapter | others)
    merge(checkpoint)
    checkpoint.pop("unmerged", None)


def fingerprint(weights: dict[str, Tensor], without: Iterable[str]) -> str:
    """Compute the CRC of all weights but some."""
    crc = 0
    for name in sorted(weights.keys() - set(without)):
        if name.startswith(OURS):
            crc = zlib.crc32(weights[name].contiguous().flatten().view(torch.uint8).numpy().tobytes(), crc)
    return f"{crc:08x}"


def _settings(folder: Path) -> dict[str, Any]:
    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind, rank, alpha = (settings[key] for key in ("peft_type", "r", "lora_alpha"))
    except FileNotFoundError as error:
        raise InputError(f"{folder} is no adapter: it has no {CONFIG}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / CONFIG} is not the configuration of an adapter: {error}") from error
    if kind != "LORA" or not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise InputError(f"{folder / CONFIG} has peft_type {kind}, r {rank}, lora_alpha {alpha}: that is no LoRA")
    more = [name for name in MORE if settings.get(name)] + (["bias"] if settings.get("bias", "none") != "none" else [])
    if more:
        raise InputError(f"{folder / CONFIG} has {more[0]} {settings[more[0]]}: only plain LoRA can be merged here")
    return dict(settings)


def _tensors(folder: Path) -> tuple[dict[str, Tensor], str | None]:
    """Read the tensors, and the fingerprint of the weights that they were trained on, which only our own have."""
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {}).get("base")  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError(f"{folder} is no adapter: it has no {WEIGHTS}") from error
    except SafetensorError as error:
        raise InputError(f"{folder / WEIGHTS} is truncated or damaged: {error}") from error
