"""Rows of JSON: one object a line, or a whole file that is one list of them or has one under a key."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from src.data.malformed import Reading, Row, clean_copy, encoding_of
from src.errors import InputError
from src.files import UTF8, encoding_name, is_text, open_binary, raw_lines, without_end


def readable_json(
    file: Path, columns: tuple[str, ...], texts: tuple[str, ...], reading: Reading, cache_dir: Path
) -> Path:
    """Give the file, or a copy of its rows, one a line, without malformed ones and byte order mark.

    A row is told by its ``columns`` from an object that holds rows; those of them in ``texts`` must be text.
    """
    encoding = encoding_of(file, reading)
    items = json_list(file, columns, encoding)
    with open_binary(file) as opened:
        is_plain = items is None and encoding == UTF8 and opened.read(3) != codecs.BOM_UTF8
    if is_plain and all(row.reason is None for row in json_rows(file, items, texts, encoding)):
        return file
    rows = json_rows(file, items, texts, encoding)
    return clean_copy(file, ".jsonl", (texts, encoding), rows, _write_json, reading, cache_dir)


def _write_json(file: BinaryIO, rows: Iterator[Row]) -> None:
    for row in rows:
        file.write(f"{without_end(row.raw)}\n".encode())


def json_list(file: Path, columns: tuple[str, ...], encoding: str) -> list[Any] | None:
    """Read a file that is one list of rows, or one object with a list under a key; None where a line is a row."""
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
    return all(column in fields_of(row) for column in columns)


def fields_of(row: dict[str, Any]) -> dict[str, Any]:
    nested = row.get("translation")
    return nested if isinstance(nested, dict) else row


def json_rows(file: Path, items: list[Any] | None, texts: tuple[str, ...], encoding: str) -> Iterator[Row]:
    if items is not None:
        for number, value in enumerate(items, start=1):
            raw = json.dumps(value)
            yield Row(number, value, raw, _json_reason(value, raw, texts))
        return
    for number, line in enumerate(raw_lines(open_binary(file), encoding), start=1):
        if line.strip():
            value = _parsed(line)
            reason = _json_reason(value, line, texts) if is_text(line) else f"invalid {encoding_name(encoding)}"
            yield Row(number, value, line, reason)


_NO_JSON = object()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NO_JSON


def _json_reason(value: Any, raw: str, texts: tuple[str, ...]) -> str | None:
    if value is _NO_JSON:
        return "no JSON"
    if not isinstance(value, dict):
        return "wrong type"
    found = [fields_of(value).get(column) for column in texts]
    if not all(text is None or isinstance(text, str) for text in found):
        return "wrong type"
    # nothing but an escape can be half a character
    return "lone surrogate" if "\\ud" in raw.lower() and not is_text(json.dumps(value, ensure_ascii=False)) else None
