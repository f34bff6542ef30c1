"""Rows of JSON: one object a line, or a whole file that is one list of them, or that has one under a key."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from src.atomic import atomic_file
from src.data.copies import Row, copy_of, encoding_of
from src.data.malformed import Malformed, Reading
from src.errors import InputError
from src.files import UTF8, encoding_name, is_text, open_binary, printable, raw_lines, without_end


def readable_json(
    file: Path, columns: tuple[str, ...], texts: tuple[str, ...], reading: Reading, cache_dir: Path
) -> Path:
    """The file, or a copy of its rows, one a line, without malformed ones and byte order mark.

    Args:
        file: of JSON.
        columns: that its rows have, by which a row is told from an object that holds rows.
        texts: those of them that must be text.
        reading: its encoding, and what is done about malformed rows.
        cache_dir: where the copy goes.

    Raises:
        InputError: it is one object with several lists, or too many of its rows are malformed.
    """
    encoding = encoding_of(file, reading)
    whole = _whole_json(file, columns, encoding)
    malformed, count = Malformed(str(file), reading), 0
    for count, row in enumerate(_json_rows(file, whole, texts, encoding), start=1):  # noqa: B007
        if row.objection is not None:
            malformed.add(row.objection, f"row {row.number:,}", printable(row.raw))
    left_out = malformed.counts.total()
    malformed.announce(of=count)
    with open_binary(file) as opened:
        is_marked = opened.read(3) == b"\xef\xbb\xbf"
    if whole is None and encoding == UTF8 and not is_marked and not left_out:
        return file
    copy = copy_of(file, ".jsonl", (texts, encoding), cache_dir)
    with FileLock(f"{copy}.lock"):
        if not copy.exists():
            with atomic_file(copy) as written:
                for row in _json_rows(file, whole, texts, encoding):
                    if row.objection is None:
                        written.write(f"{without_end(row.raw)}\n".encode())
    return copy


def _whole_json(file: Path, columns: tuple[str, ...], encoding: str) -> list[Any] | None:
    """The rows of a file that is one list, or one object with a list under a key; None where a line is a row.

    Raises:
        InputError: it is one object with several lists.
    """
    filled = (line for line in raw_lines(open_binary(file), encoding) if line.strip())
    first, is_one_line = _parsed(next(filled, "")), next(filled, None) is None
    if isinstance(first, dict) and (not is_one_line or _has(first, columns)):
        return None
    content = _parsed("".join(raw_lines(open_binary(file), encoding)))
    if not isinstance(content, dict):
        return content if isinstance(content, list) else None
    lists = [value for value in content.values() if isinstance(value, list) and isinstance((value or [0])[0], dict)]
    if not lists or _has(content, columns):
        return [content]
    if len(lists) > 1:
        raise InputError(
            f"{file} is one JSON object with {len(lists)} lists of rows under its keys ({', '.join(content)}): "
            "give one object a line, or one list of them"
        )
    return lists[0]


def _has(row: dict[str, Any], columns: tuple[str, ...]) -> bool:
    return all(column in _fields(row) for column in columns)


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    nested = row.get("translation")
    return nested if isinstance(nested, dict) else row


def _json_rows(file: Path, whole: list[Any] | None, texts: tuple[str, ...], encoding: str) -> Iterator[Row]:
    if whole is not None:
        for number, value in enumerate(whole, start=1):
            raw = json.dumps(value)
            yield Row(number, value, raw, _json_objection(value, raw, texts))
        return
    for number, line in enumerate(raw_lines(open_binary(file), encoding), start=1):
        if line.strip():
            value = _parsed(line)
            objection = _json_objection(value, line, texts) if is_text(line) else f"invalid {encoding_name(encoding)}"
            yield Row(number, value, line, objection)


_NO_JSON = object()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NO_JSON


def _json_objection(value: Any, raw: str, texts: tuple[str, ...]) -> str | None:
    if value is _NO_JSON:
        return "no JSON"
    if not isinstance(value, dict):
        return "wrong type"
    found = [_fields(value).get(column) for column in texts]
    if not all(text is None or isinstance(text, str) for text in found):
        return "wrong type"
    # nothing but an escape can be half a character
    return "lone surrogate" if "\\ud" in raw.lower() and not is_text(json.dumps(value, ensure_ascii=False)) else None
