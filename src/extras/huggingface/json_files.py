"""HuggingFace's JSON files: whatever they hold is checked by type before it is used; null means not set."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from src.errors import InputError

CONFIG, GENERATION = "config.json", "generation_config.json"
LIMIT = 2**31  # of whole numbers

T = TypeVar("T")
D = TypeVar("D")

DESCRIPTIONS = {
    bool: "true or false",
    int: "a whole number below 2^31",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


def read_json(path: Path, *, needed: bool = False) -> dict[str, Any]:
    """Read a JSON object; an empty one, if the file is not there and not needed."""
    if not path.is_file():
        if needed:
            raise InputError(f"{path.parent} has no {path.name}: it is no model in HuggingFace's format")
        return {}
    found = _load(path)
    if not isinstance(found, dict):
        raise InputError(f"{path} does not hold an object: it begins {shown(found)}")
    return found


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {error}") from error


def read_json_list(path: Path) -> list[dict[str, Any]]:
    """Read a list of JSON objects."""
    found = _load(path)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InputError(f"{path} does not hold a list of objects: it begins {shown(found)}")
    return found


def write_json(path: Path, content: dict[str, Any] | list[Any]) -> None:
    """Write an object or a list, indented, with a line end."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def setting(settings: Mapping[str, Any], key: str, kind: type[T], default: D, file: str = CONFIG) -> T | D:
    """Get the value of a key, or the default where the key is missing or null.

    Args:
        settings: the object that the file holds.
        key: of it.
        kind: bool, int, float (which a whole number is, too), str, list or dict; another type is refused.
        default: where it is not set.
        file: named in the refusal.
    """
    value = settings.get(key)
    if value is None:
        return default
    if not has_type(value, kind):
        raise InputError(f"{file} has {key} {shown(value)}, which is not {DESCRIPTIONS[kind]}")
    return value


def has_type(value: Any, kind: type) -> bool:
    """Whether a value of JSON is of a type; true and false are no numbers, and neither are NaN and infinity."""
    if kind in (int, float):
        numbers, limit = ((int, float), sys.float_info.max) if kind is float else (int, LIMIT - 1)
        return isinstance(value, numbers) and not isinstance(value, bool) and abs(value) <= limit
    return isinstance(value, kind)


def list_setting(settings: Mapping[str, Any], key: str, kind: type[T], file: str = CONFIG) -> list[T]:
    """List the values of a key that holds a list, or one value, or nothing."""
    value = settings.get(key)
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(has_type(one, kind) for one in values):
        raise InputError(f"{file} has {key} {shown(value)}, which is not {DESCRIPTIONS[kind]} or a list of such")
    return values


def token_setting(settings: Mapping[str, Any], key: str, file: str) -> str | None:
    """Get a token: text, or an object with its text under ``content``; None where it is not set."""
    if isinstance(settings.get(key), dict):
        return setting(settings[key], "content", str, None, f"{key} of {file}")
    return setting(settings, key, str, None, file)


def shown(value: Any) -> str:
    """Shorten a value for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
