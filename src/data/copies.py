"""Copies of files of rows that `datasets` can read, without the rows that would stop it."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from src.data.malformed import Reading
from src.errors import InputError
from src.files import UTF8, open_binary

FORMAT = 1  # of the copies; counted up when what is written changes
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Row(NamedTuple):
    """A row of a file: its number from 1, what is in it, how it stands there, and what is wrong with it."""

    number: int
    value: Any
    raw: str
    objection: str | None


def copy_of(file: Path, ending: str, shape: Any, cache_dir: Path) -> Path:
    """Where the copy of a file goes: a name by all that shapes it."""
    stat = file.stat()
    key = repr((FORMAT, str(file.resolve()), stat.st_size, stat.st_mtime_ns, shape))
    folder = cache_dir / "readable" / hashlib.sha256(key.encode()).hexdigest()[:20]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cache_dir {cache_dir} cannot be written: {error}") from error
    return folder / f"{file.name.partition('.')[0]}{ending}"


def encoding_of(file: Path, reading: Reading) -> str:
    """The encoding of a file: as asked; else UTF-8, or UTF-16 where a byte order mark says so."""
    with open_binary(file) as opened:
        mark = opened.read(2)
    return reading.encoding or ("utf-16" if mark in UTF16_MARKS else UTF8)
