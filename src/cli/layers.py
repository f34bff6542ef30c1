"""The configuration inside a checkpoint, which is the lowest layer of a run that takes it up."""

from typing import Any

import yaml

from src.checkpoint import read_header
from src.errors import InputError

# in a checkpoint's configuration, what belongs to the verb that wrote it and not to the run
OF_THE_VERB = ("ckpt_path", "weights_only", "verbose", "return_predictions")


def header_of(path: str, to_go_on: bool) -> dict[str, Any]:
    """What a checkpoint holds beside its weights.

    Raises:
        InputError: a run is to go on from it, and it holds weights alone.
    """
    header = read_header(path)
    if to_go_on and "loops" not in header:
        raise InputError(f"{path} holds no run to go on with: start one from its weights by --model.pretrained {path}")
    return {key: value for key, value in header.items() if key not in ("state_dict", "optimizer_states")}


def layer_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The configuration inside a checkpoint, less what belonged to the verb that wrote it."""
    return {key: value for key, value in yaml.safe_load(checkpoint["config"]).items() if key not in OF_THE_VERB}


def changes(old: Any, new: Any, key: str = "") -> list[str]:
    """The leaves of two nested configurations that differ, as ``key: old -> new``."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [line for k in keys for line in changes(old.get(k), new.get(k), f"{key}.{k}" if key else k)]
    return [] if old == new else [f"{key}: {old} -> {new}"]
