"""What a class's name in a configuration means, and which names it may have.

A configuration is data from anywhere, and to name a class is to import and run its code: so it may name those of a few
packages only. Two functions of jsonargparse are replaced where its own answer would surprise; the tests hold that on
every release.
"""

import json
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any, get_type_hints

from jsonargparse import Namespace, _typehints, set_parsing_settings
from jsonargparse._util import NestedArg, import_object

from src.errors import InputError

# packages whose classes are configured, and the module of PyTorch's own values (datetime: `trainer.max_time`)
ALLOWED = ["src", "torch", "lightning", "pytorch_lightning", "torchmetrics", "datetime"]
# parts of them that load or build code from what a configuration would name
DENIED = [
    "torch.hub",
    "torch.load",
    "torch.serialization",
    "torch.package",
    "torch.jit",
    "torch.classes",
    "torch.ops",
    "torch.utils.cpp_extension",
    "torch.distributed.run",
    "torch.distributed.launch",
    "torch.distributed.elastic",
    "torch.multiprocessing",
    "lightning.pytorch.cli",
    "lightning.app",
]

_allowed_before: set[str] = set()
_resolve = _typehints.resolve_class_path_by_name
_discard = _typehints.discard_init_args_on_class_path_change


def allow_class_paths(more: list[str]) -> None:
    """Restrict what a configuration may name to those packages, before anything is imported for it.

    Args:
        more: modules of the user's own, for this command; those of the one before are forgotten. They are imported, so
            that they register their architectures.
    """
    forgotten = _allowed_before - {*more, *ALLOWED}
    try:
        set_parsing_settings(import_path_denylist=["*", *DENIED, *forgotten], import_path_allowlist=[*ALLOWED, *more])
    except ValueError as error:
        raise InputError(f"--allow_class_paths {' '.join(more)}: {error}") from error
    _allowed_before.update(more)
    import_modules(more)


def import_modules(names: list[str]) -> None:
    """Import modules of the user's own."""
    for name in names:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name not in name:
                raise
            raise InputError(f"--allow_class_paths {name}: there is no such module") from error


def check_order(arguments: list[str]) -> None:
    """Refuse a class that is named after its own arguments, which it would forget."""
    options = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    keys = [option.replace(".init_args", "") for option in options]
    for i, key in enumerate(keys):
        for later, option in zip(keys[i + 1 :], options[i + 1 :], strict=True):
            if key.startswith(f"{later}."):
                raise InputError(f"{options[i]} stands before {option}, which starts from its own defaults: swap them")


def _resolve_ours_first(cls: Any, name: str) -> str:
    """Return the full path of a class by its short name: of two of one name this project's, as `Muon` of torch's."""
    if isinstance(cls, type) and "." not in name:
        paths = [path for path in _typehints.get_all_subclass_paths(cls) if path.startswith("src.")]
        found = [path for path in paths if path.rpartition(".")[2] == name]
        if len(found) == 1:
            return found[0]
    return _resolve(cls, name)


def _forget_arguments_of_another_class(parser_or_action: Any, previous: Any, value: Any) -> None:
    """Let a class that takes another's place start from its own defaults.

    Where both have an argument, jsonargparse would keep its value: SGD in place of AdamW would decay the weights as
    AdamW did, which nobody has asked for. A class of one's own keeps the arguments of the parent that it extends; of
    the shape of its network the fields that its own has too.
    """
    nested = value.get("init_args")
    if isinstance(nested, NestedArg) and not isinstance(nested.val, str):
        # which jsonargparse, once it has called this, writes as Python does and reads as YAML: None would be a word
        value["init_args"] = nested._replace(val=json.dumps(nested.val))
    if previous and "init_args" in previous and previous["class_path"] != value["class_path"]:
        if not value["class_path"].startswith("src."):
            own, parent = import_object(value["class_path"]), import_object(previous["class_path"])
            if issubclass(own, parent) and parent.__module__.startswith("src."):
                for name, kind in get_type_hints(own.__init__).items():
                    given = previous["init_args"].get(name)
                    if is_dataclass(kind) and given:
                        for key in {*given.keys()} - {field.name for field in fields(kind)}:
                            given.pop(key)
                _discard(parser_or_action, previous, value)
                return
        previous["init_args"] = Namespace() if isinstance(previous, Namespace) else {}


_typehints.resolve_class_path_by_name = _resolve_ours_first
_typehints.discard_init_args_on_class_path_change = _forget_arguments_of_another_class
