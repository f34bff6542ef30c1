"""Rows that cannot be trained on: left out and counted, with examples, or refused."""

import csv
import hashlib
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from src.atomic import whole_file
from src.data.progress import announce
from src.errors import InputError
from src.files import open_binary

FORMAT = 1  # of the copies without malformed rows; counted up when other rows are kept
EXAMPLES = 3  # of each reason
SHOWN = 60  # characters of one


class Malformed:
    """Counts malformed rows by reason; the first of each are kept as examples.

    Args:
        source: where the rows come from, for people.
        strict: whether the first of them is refused.
    """

    def __init__(self, source: str, strict: bool) -> None:
        self.source, self.strict = source, strict
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, reason: str, place: str, content: object = "") -> None:
        """Count a row.

        Raises:
            InputError: under ``strict``.
        """
        shown = f": {str(content)[:SHOWN]!r}" if content != "" else ""
        if self.strict:
            raise InputError(
                f"{place} of {self.source} is malformed ({reason}){shown}: mend it, or set strict to false"
            )
        self.counts[reason] += 1
        if len(self._examples.setdefault(reason, [])) < EXAMPLES:
            self._examples[reason].append(f"{place}{shown}")

    def announce(self) -> None:
        """Tell how many there were, why, and where the first of them are."""
        for reason, count in self.counts.items():
            more = ", ..." if count > EXAMPLES else ""
            examples = ", ".join(self._examples[reason])
            announce(f"left out of {self.source}: {count:,} rows, {reason} ({examples}{more})")
        self.counts.clear()
        self._examples.clear()


class _Row(NamedTuple):
    number: int  # in the file, from 1: a line, or a record of a table
    raw: Any  # what is written if it is kept
    objection: str | None


def readable(file: Path, kind: str, columns: tuple[str, ...], cache_dir: Path, malformed: Malformed) -> Path:
    """A file of rows that `datasets` can read: the file itself, or a copy without the rows that would stop it.

    Those are what is not UTF-8, no JSON, or of the wrong type in a column of text, and records of a table with another
    number of fields than its header. Null and empty texts are read well, and left out later.

    Args:
        file: to be checked.
        kind: ``json``, one object a line, or ``csv``, with a header; a JSON array is left to `datasets`.
        columns: those that must be text.
        cache_dir: where the copy goes; of several processes the first makes it.
        malformed: is told of the rows that are left out.
    """
    if kind == "json" and _starts_with(file, b"["):
        return file
    read = partial(_json_rows, file, columns) if kind == "json" else partial(_table_rows, file)
    counts = Counter(row.objection is None for row in read())
    # where no row is right it is not the rows that are wrong: reading the file says what is
    if not counts[False] or counts[True] < (2 if kind == "csv" else 1):
        return file
    for row in read():
        if row.objection is not None:
            malformed.add(row.objection, f"row {row.number:,}", _text(row.raw))
    stat = file.stat()
    shaped_by = f"{FORMAT} {file.resolve()} {stat.st_size} {stat.st_mtime_ns} {columns}"
    key = hashlib.sha256(shaped_by.encode()).hexdigest()[:20]
    copy = cache_dir / "readable" / key / file.name.removesuffix(".gz")
    copy.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{copy}.lock"):  # the ranks of a stream, or the runs of a sweep, come here at once
        if not copy.exists():
            with whole_file(copy) as written:
                written.writelines(row.raw for row in read() if row.objection is None)
    return copy


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="replace").strip()


def _starts_with(file: Path, what: bytes) -> bool:
    with open_binary(file) as opened:
        return opened.read(100).lstrip().startswith(what)


def _json_rows(file: Path, columns: tuple[str, ...]) -> Iterator[_Row]:
    with open_binary(file) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _Row(number, line, _json_objection(line, columns))


def _json_objection(line: bytes, columns: tuple[str, ...]) -> str | None:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return "invalid UTF-8"
    except (ValueError, RecursionError):
        return "no JSON"
    if not isinstance(row, dict):
        return "wrong type"
    nested = row.get("translation")
    values = [(nested if isinstance(nested, dict) else row).get(column) for column in columns]
    return None if all(value is None or isinstance(value, str) for value in values) else "wrong type"


def _table_rows(file: Path) -> Iterator[_Row]:
    csv.field_size_limit(sys.maxsize)
    delimiter = "\t" if ".tsv" in file.suffixes else ","
    with io.TextIOWrapper(open_binary(file), encoding="utf-8", errors="surrogateescape", newline="") as text:
        width = None
        try:
            for number, fields in enumerate(csv.reader(text, delimiter=delimiter), start=1):
                width = width or len(fields)
                out = io.StringIO(newline="")
                csv.writer(out, delimiter=delimiter).writerow(fields)
                raw = out.getvalue().encode("utf-8", errors="surrogateescape")
                objection = None if len(fields) in (0, width) else "wrong number of fields"
                if any("\udc80" <= character <= "\udcff" for field in fields for character in field):
                    objection = "invalid UTF-8"
                yield _Row(number, raw, objection)
        except csv.Error:
            return  # reading the file says what is wrong
