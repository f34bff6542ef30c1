"""What an object was made with, in the plain values that a configuration has for it, and back."""

import inspect
import sys
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_warn

from src.errors import InputError


def arguments_of(made: Any) -> dict[str, Any]:
    """Collect what an object is being made with, defaults among it: to be called in an ``__init__`` of its classes.

    Where that was called by the ``__init__`` of a subclass, it is the subclass's arguments that count.
    """
    frame, found = inspect.currentframe(), {}
    while frame is not None and (frame := frame.f_back) is not None and frame.f_code.co_name == "__init__":
        names, _, rest, values = inspect.getargvalues(frame)
        if values[names[0]] is not made:
            break  # another object, which makes this one
        found = {name: values[name] for name in names[1:]} | (values[rest] if rest else {})
    return found


def settings_of(value: Any, name: str) -> Any:
    """Write a value as a configuration has it: a class and its ``init_args``, a path to a function, or plain values.

    Args:
        value: plain, a dataclass, a class or a function or a ``functools.partial`` of one, or an object that keeps its
            ``arguments``: see :func:`arguments_of`.
        name: of the argument that it is.

    Raises:
        InputError: for what has no name; of an object's ``arguments`` such a one is left out, with a warning.
    """
    if hasattr(value, "arguments"):
        return {"class_path": _path(type(value), name), "init_args": _init_args(value)}
    if isinstance(value, partial):
        # jsonargparse has functions of its own before the class
        kind = next((part for part in (value.func, *value.args) if isinstance(part, type)), None)
        return {"class_path": _path(kind, name), "init_args": settings_of(value.keywords, name)}
    if isinstance(value, type):
        return {"class_path": _path(value, name)}
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): settings_of(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [settings_of(item, name) for item in value]
    is_plain = value is None or type(value) in (bool, int, float, str)
    return value if is_plain else str(value) if isinstance(value, Path) else _path(value, name)


def _init_args(made: Any) -> dict[str, Any]:
    init_args = {}
    for name, argument in made.arguments.items():
        try:
            init_args[name] = settings_of(argument, name)
        except InputError as error:  # no reason to lose what is to be saved
            rank_zero_warn(f"the checkpoint does not say {type(made).__name__}'s {error}")
    return init_args


def _path(named: Any, name: str) -> str:
    """Return the path that a class or a function is imported by."""
    path = getattr(named, "__qualname__", "<")
    if "<" in path:
        raise InputError(
            f"{name}, {named!r}, which has no name: give a class or a function of a module, or functools.partial of a "
            "class, as partial(AdamW, lr=1e-3)"
        )
    return f"{named.__module__}.{path}"


def class_at(settings: Any, kind: type, name: str) -> partial[Any]:
    """Find the class that settings name, with its arguments.

    It must be of a module that is imported already: settings are data from anywhere, and to import is to run code.
    """
    path = str(settings["class_path"] if isinstance(settings, Mapping) else settings)
    module, _, attribute = path.rpartition(".")
    found = getattr(sys.modules.get(module), attribute, None)
    if not isinstance(found, type) or not issubclass(found, kind):
        raise InputError(
            f"{name} is {path}, no {kind.__name__} of a module that is imported: import it, or give {name}"
        )
    return partial(found, **(settings.get("init_args") or {} if isinstance(settings, Mapping) else {}))
