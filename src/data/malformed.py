"""Rows that cannot be trained on: refused, or left out and counted, with examples; and copies of files without them."""

import codecs
import hashlib
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from filelock import FileLock

from src.atomic import atomic_file
from src.data.progress import announce, with_progress
from src.errors import InputError
from src.files import UTF8, check_file, codec_of, counted, open_binary, printable, unescaped

EXAMPLES = 3  # of each reason
SHOWN = 60  # characters of one
FORMAT = 1  # of the copies; counted up when what is written changes


@dataclass(frozen=True)
class Reading:
    """How files are read, and what is done about malformed rows.

    Args:
        strict: refuse the first malformed row, instead of leaving it out.
        max_malformed: refuse a file with a larger fraction of malformed rows.
        delimiter: between the fields of a table; by the ending and the header of the file if None.
        encoding: of texts, tables and JSON; UTF-8 if None, or what a table is without doubt.
    """

    strict: bool = False
    max_malformed: float = 0.05
    delimiter: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_malformed <= 1:
            raise InputError(f"max_malformed is {self.max_malformed}: it is a fraction, from 0 to 1")
        if self.delimiter is not None and len(unescaped(self.delimiter)) != 1:
            raise InputError(f"delimiter is {self.delimiter!r}: it must be one character")
        codec_of(self.encoding or UTF8)  # refuses an unknown one

    def option(self, name: str) -> str:
        """Name the option of the command line for one of the arguments."""
        return f"--data.{name}"

    def check_text(self, file: Path) -> None:
        """Refuse a text file that is missing, empty, or not in the encoding."""
        remedy = f"name its encoding by {self.option('encoding')}, or convert it first"
        check_file(file, is_text=True, encoding=self.encoding or UTF8, remedy=remedy)


DEFAULT = Reading()


class Malformed:
    """Count malformed rows by reason, and keep the first of each as examples.

    Args:
        source: where the rows come from, for people.
        reading: whether the first of them is refused, and how many may be left out.
    """

    def __init__(self, source: str, reading: Reading) -> None:
        self.source, self.reading = source, reading
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, reason: str, where: str, content: object = "") -> None:
        """Count a row; refuse it under ``strict``."""
        shown = f": {str(content)[:SHOWN]!r}" if content != "" else ""
        if self.reading.strict:
            raise InputError(
                f"{where} of {self.source} is malformed ({reason}){shown}: mend it, or set strict to false"
            )
        self.counts[reason] += 1
        if len(self._examples.setdefault(reason, [])) < EXAMPLES:
            self._examples[reason].append(f"{where}{shown}")

    def announce(self, of: int | None = None) -> None:
        """Tell how many there were, why, and where the first of them are; refuse more than ``max_malformed``."""
        for line in self.report(of):
            announce(line)

    def report(self, of: int | None = None) -> list[str]:
        """Say what :meth:`announce` tells, and begin to count anew.

        Args:
            of: rows that were read, where all that was counted here is unreadable.
        """
        told = []
        for reason, count in self.counts.items():
            examples = ", ".join(self._examples[reason]) + (", ..." if count > EXAMPLES else "")
            told.append(f"{counted(count, 'rows')}, {reason} ({examples})")
        left_out, reasons = sum(self.counts.values()), " ".join(self.counts)
        self.counts.clear()
        self._examples.clear()
        if of is not None and left_out > self.reading.max_malformed * of:
            option, remedies = self.reading.option, ["mend them"]
            if "invalid" in reasons:
                remedies.append(f"set {option('encoding')}")
            if "fields" in reasons or "quote" in reasons:
                remedies.append(f"set {option('delimiter')}")
            if left_out < of:  # rounded up, to a fraction that is enough
                remedies.append(f"leave them out by {option('max_malformed')} {math.ceil(left_out / of * 100) / 100:g}")
            raise InputError(
                f"{left_out:,} of the {counted(of, 'rows')} of {self.source} cannot be read: {'; '.join(told)}; "
                f"{', or '.join(remedies)}"
            )
        return [f"left out of {self.source}: {line}" for line in told]


def malformed_reason(texts: Sequence[object]) -> str | None:
    """Say what is wrong with the texts of a row, if anything."""
    if None in texts:
        return "no value"
    if not all(isinstance(text, str) for text in texts):
        return "wrong type"
    return None if all(str(text).strip() for text in texts) else "empty"


class Row(NamedTuple):
    """A row of a file: its number from 1, what is in it, how it stands there, and what is wrong with it."""

    number: int
    value: Any
    raw: str
    reason: str | None


def clean_copy(
    file: Path,
    ending: str,
    shape: Any,
    rows: Iterable[Row],
    write: Callable[[BinaryIO, Iterator[Row]], None],
    reading: Reading,
    cache_dir: Path,
) -> Path:
    """Copy a file without its malformed rows, once, and tell of those each time.

    Args:
        ending: of the copy's name.
        shape: all but the file itself that shapes the copy.
        write: writes the rows that are kept.
    """
    malformed, count = Malformed(str(file), reading), 0

    def kept() -> Iterator[Row]:
        nonlocal count
        for count, row in enumerate(with_progress(rows, f"reading {file.name}"), start=1):  # noqa: B007
            if row.reason is None:
                yield row
            else:
                malformed.add(row.reason, f"row {row.number:,}", printable(row.raw))

    stat = file.stat()
    key = repr((FORMAT, str(file.resolve()), stat.st_size, stat.st_mtime_ns, shape))
    folder = cache_dir / "readable" / hashlib.sha256(key.encode()).hexdigest()[:20]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cache_dir {cache_dir} cannot be written: {error}") from error
    copy = folder / f"{file.name.partition('.')[0]}{ending}"
    with FileLock(f"{copy}.lock"):  # several processes may prepare the same file
        if copy.exists():
            deque(kept(), maxlen=0)
        else:
            with atomic_file(copy, copy.with_name(f"{copy.name}.part")) as written:
                write(written, kept())
    malformed.announce(of=count)
    return copy


def encoding_of(file: Path, reading: Reading) -> str:
    """Choose the encoding of a file: as asked; else UTF-8, or UTF-16 where a byte order mark says so."""
    with open_binary(file) as opened:
        mark = opened.read(2)
    return reading.encoding or ("utf-16" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else UTF8)
