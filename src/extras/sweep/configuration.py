"""One complete configuration for each run, from YAML files, each over those before it, and dotted keys."""

import copy
import re
from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from src.errors import InputError

CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-3 for text, since it has no point: here it is a number, as on the command line."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file that holds a YAML mapping."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no settings: it must be a YAML mapping")
    return content


def read_value(text: str) -> Any:
    """Parse a value as it would stand in a YAML file."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{text!r} is no YAML value") from error


def check_fields(content: dict[str, Any], kind: type, where: str, without: tuple[str, ...] = ()) -> None:
    """Refuse a key that is no field of a dataclass."""
    known = [f.name for f in fields(kind) if f.name not in without]
    for key in content:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise InputError(f"unknown key {key!r} in {where}; {hint}")


def layered(paths: Sequence[Path], base: dict[str, Any] | None = None) -> dict[str, Any]:
    """Merge several configuration files, each over those before it, and all over a base."""
    config = base or {}
    for path in paths:
        config = _over(config, read_yaml(path))
    return config


def _over(lower: Any, upper: Any) -> Any:
    if not (isinstance(lower, dict) and isinstance(upper, dict)):
        return upper
    if upper.get("class_path", lower.get("class_path")) != lower.get("class_path"):
        return upper  # the arguments of another class
    return {key: _over(lower.get(key), upper.get(key)) if key in upper else lower[key] for key in {**lower, **upper}}


def setting(config: dict[str, Any], key: str) -> Any:
    """Return the value at a dotted key, which may leave out ``init_args``; None where there is none."""
    node: Any = config
    for name in key.split("."):
        if isinstance(node, dict) and "class_path" in node and name not in CLASS_KEYS:
            node = node.get("init_args")
        if not isinstance(node, dict):
            return None
        node = node.get(name)
    return node


def with_settings(config: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Copy a configuration and set values at dotted keys, which may leave out ``init_args``.

    A new class starts with no arguments: none of those of the class before it are kept.
    """
    config = copy.deepcopy(config)
    for key, value in settings.items():
        *parents, last = key.split(".")
        node = config
        for name in parents:
            node = _arguments(node, name)
            child = node.get(name)
            if not isinstance(child, dict):  # a class by its name alone, or nothing yet
                node[name] = {"class_path": child} if isinstance(child, str) else {}
            node = node[name]
        if last == "class_path" and node.get("class_path") != value:
            node.clear()
        _arguments(node, last)[last] = copy.deepcopy(value)
    return config


def _arguments(node: dict[str, Any], name: str) -> dict[str, Any]:
    """Where a class has its argument ``name``; the node itself where it is no class."""
    if "class_path" in node and name not in CLASS_KEYS:
        node["init_args"] = node.get("init_args") or {}
        return node["init_args"]
    return node
