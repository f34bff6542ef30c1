"""The configuration that a run from Python leaves in its checkpoints, as the command line does, and the way back."""

import inspect
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from torch.optim import Optimizer

from src.architectures import architectures
from src.arguments import class_at, settings_of
from src.checkpoint import read_checkpoint
from src.errors import InputError
from src.optim import GroupOptions, Schedule

if TYPE_CHECKING:
    from src.tasks.base import Task

T = TypeVar("T", bound="Task")
# the trainer's settings that decide what is learnt, and how a run that goes on does so
TRAINER = (
    *("max_steps", "max_epochs", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"),
    *("val_check_interval", "check_val_every_n_epoch", "log_every_n_steps", "precision"),
)
BUILT_IN = ("src", "torch")  # packages whose classes any configuration may name


def configuration(task: "Task") -> dict[str, Any]:
    """Describe the run of a task as the command line would: ``config``, a YAML text, and the user's own ``modules``."""
    model, data = settings_of(task, "model"), settings_of(task.data, "data")
    model["init_args"]["config"].pop("vocab_size", None)  # the data decide it
    seed = data["init_args"].pop("seed", 0)  # which on the command line is the run's
    trainer = {name: settings_of(getattr(task.trainer, name), name) for name in TRAINER}
    config = {"seed_everything": seed, "model": model, "data": data, "trainer": trainer}
    modules = {path.rpartition(".")[0] for path in _class_paths(config) if path.partition(".")[0] not in BUILT_IN}
    return {"config": yaml.safe_dump(config, sort_keys=False), "modules": sorted(modules)}


def _class_paths(settings: Any) -> list[str]:
    """List the class paths in nested settings."""
    if not isinstance(settings, dict):
        return []
    own = [settings["class_path"]] if "class_path" in settings else []
    return own + [path for value in settings.values() for path in _class_paths(value)]


def _model_arguments(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint's configuration says of its task; one that did not train may say nothing."""
    return (yaml.safe_load(checkpoint["config"]).get("model") or {}).get("init_args") or {}


def check_optimizer(checkpoint: dict[str, Any], optimizer: Any) -> None:
    """Refuse to go on with an optimizer of another class than the one whose state a checkpoint has."""
    was = _model_arguments(checkpoint).get("optimizer")
    try:
        now = settings_of(optimizer, "optimizer")
    except InputError:  # a function without a name
        return
    old, new = (str(named["class_path"] if isinstance(named, dict) else named) for named in (was or now, now))
    # torch.optim.AdamW is also torch.optim.adamw.AdamW, and AdamW in short
    packages = {path.partition(".")[0] for path in (old, new) if "." in path}
    if old.rpartition(".")[2] != new.rpartition(".")[2] or len(packages) > 1:
        raise InputError(
            f"the checkpoint's run had {old}, this configuration has {new}: set model.optimizer as it was, or start a "
            "run from its weights by --model.pretrained"
        )


def load_task(kind: type[T], path: str | Path, given: dict[str, Any]) -> T:
    """Make the task of a checkpoint, with its trained network, on the CPU.

    Args:
        kind: the class, of whose arguments the checkpoint's configuration may say more or less.
        path: of the checkpoint.
        given: arguments in place of those of the checkpoint.
    """
    checkpoint = read_checkpoint(path)
    held = checkpoint["architecture"]
    if held != kind.architecture:
        raise InputError(f"checkpoint {path} holds a {held}, and {kind.__name__} trains a {kind.architecture}")
    found = {"config": architectures()[held].config(**checkpoint["model_config"]), **given}
    settings = _model_arguments(checkpoint)
    for name, value in settings.items():
        if name in _parameters(kind) - {"optimizer", "schedule", "pretrained", *found}:
            found[name] = GroupOptions(**value) if name == "groups" else value
    for name, base in (("optimizer", Optimizer), ("schedule", Schedule)):
        if name not in found:
            if not settings.get(name):
                raise InputError(f"checkpoint {path} names no {name}: give {name}=... beside its path")
            found[name] = class_at(settings[name], base, name)
    if isinstance(found["schedule"], partial):
        found["schedule"] = found["schedule"]()
    task = kind(**found)
    task.configure_model()
    weights = checkpoint["state_dict"].items()
    task.model.load_state_dict({name.removeprefix("model."): weight for name, weight in weights})
    task.loaded = {key: checkpoint[key] for key in checkpoint.keys() - {"state_dict", "optimizer_states"}}
    return task


def _parameters(kind: type) -> set[str]:
    """Name the parameters of a class and of those that it extends, to which it hands on what it does not name."""
    constructors = [vars(base)["__init__"] for base in kind.mro() if "__init__" in vars(base)]
    return {name for constructor in constructors for name in inspect.signature(constructor).parameters}
