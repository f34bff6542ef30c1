"""An adapter as HuggingFace's peft has it: a folder with its settings as JSON, and its tensors."""

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from src.atomic import new_folder
from src.checkpoint import tied_names
from src.errors import InputError
from src.extras.lora.layers import PARTS
from src.extras.lora.merging import adapted_layers, merge, unmerge

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OURS, THEIRS = "model.", "base_model.model."  # what the names of a network's tensors begin with
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
LARGEST = torch.finfo(torch.float32).max
# settings of peft's that a merge follows, or that have no part in it; any other may change what an adapter computes
PLAIN = {
    *("r", "lora_alpha", "use_rslora", "lora_dropout", "modules_to_save", "inference_mode"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
    *("megatron_core", "qalora_group_size"),  # which always have a value, and are read beside others only
}
# others train biases of the base, or change its weights
PLAIN_VALUES: dict[str, list[Any]] = {
    "bias": ["none"],
    "init_lora_weights": [True, "gaussian", "orthogonal"],
}


def write_adapter(checkpoint: dict[str, Any], path: Path, folder: Path) -> None:
    """Write the adapter of a checkpoint, and whatever else was trained: ``modules_to_save``.

    Args:
        checkpoint: as it was read from ``path``.
        path: which the errors name.
        folder: new, or empty.
    """
    if "unmerged" not in checkpoint:
        raise InputError(f"checkpoint {path} has no adapter: its run was not given the callback LoRA")
    unmerge(checkpoint)
    state: dict[str, Tensor] = checkpoint["state_dict"]
    layers = adapted_layers(state)
    trained = {f"{OURS}{name}" for name in checkpoint["trained"] if not name.endswith(PARTS)}
    for group in tied_names(checkpoint):  # peft's copies of tied modules are tied no more: each is given its own
        trained |= {*group} if trained & {*group} else set()
    modules = {name.rpartition(".")[0] for name in trained} - {*layers}  # each of which peft reads as a whole
    others = [name for name in state if name in trained or name.rpartition(".")[0] in modules]
    names = [f"{layer}.{part}" for layer in layers for part in PARTS[:2]] + others
    rank = state[f"{layers[0]}.{PARTS[0]}"].shape[0]
    alpha = state[f"{layers[0]}.{PARTS[2]}"].item() * rank
    settings = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "target_modules": [layer.removeprefix(OURS) for layer in layers],
        "modules_to_save": sorted(module.removeprefix(OURS) for module in modules) or None,
        "bias": "none",
        "inference_mode": True,
    }
    tensors = {
        THEIRS + name.removeprefix(OURS): state[name].clone(memory_format=torch.contiguous_format) for name in names
    }
    from safetensors.torch import save

    base = {name: weight for name, weight in state.items() if not name.endswith(PARTS)}
    with new_folder(folder) as aside:
        (aside / WEIGHTS).write_bytes(save(tensors, {"format": "pt", "base": fingerprint(base, others)}))
        (aside / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


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
            raise InputError(
                f"{folder} has {name}, for which the network of {path} has no weight: name its own base, and plain LoRA"
            )
        if tensor.dtype not in DTYPES:
            raise InputError(f"{folder} has {name} in {tensor.dtype}: save it in float32, float16 or bfloat16")
        if layer is not None and own.endswith(PARTS[0]) and tensor.shape[:1] != (settings["r"],):
            found = f"r {settings['r']}, but {name} is of shape {tuple(tensor.shape)}"
            raise InputError(f"{folder / CONFIG} has {found}: use the configuration that it was trained with")
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
    state.update(adapter | {name: tensor.to(state[name].dtype) for name, tensor in others.items()})
    merge(checkpoint, str(folder))
    checkpoint.pop("unmerged", None)
    _check_merged(checkpoint, path, folder, [*others, *(f"{layer}.weight" for layer in adapted_layers(adapter))])


def _check_merged(checkpoint: dict[str, Any], path: Path, folder: Path, changed: Iterable[str]) -> None:
    """Refuse weights that are not finite, and two values of a tied one, which peft can train."""
    state = checkpoint["state_dict"]
    for name in changed:
        if not state[name].isfinite().all():
            raise InputError(f"{folder} makes {name} of {path} infinite or NaN: use another one")
    for first, *others in tied_names(checkpoint):
        for name in others:
            if not torch.equal(state[first], state[name]):
                raise InputError(
                    f"{folder} makes {first} and {name} differ, which are one tied weight in {path}: "
                    "train it without them, or on a network that does not tie them"
                )


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
    numbers = type(rank) is int and type(alpha) in (int, float)  # a bool is none
    if kind != "LORA" or not numbers or not 1 <= rank <= LARGEST or not abs(alpha) <= LARGEST:
        found = f"peft_type {kind!r:.20}, r {rank!r:.20}, lora_alpha {alpha!r:.20}"
        raise InputError(
            f"{folder / CONFIG} has {found}: it must be LORA, with a whole r of at least 1 and a finite alpha"
        )
    for name, value in settings.items():
        if value and name not in PLAIN and value not in PLAIN_VALUES.get(name, []):
            raise InputError(
                f"{folder / CONFIG} has {name} {value!r:.60}: only plain LoRA can be merged, train it without"
            )
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
