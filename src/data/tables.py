"""Rows of tables, whatever their delimiter, their quotes and their encoding.

A table is written anew as Parquet, all its fields text as they stand in it, so that nothing guesses at types, and "NA"
or "007" stay what they are.
"""

import csv
import io
import re
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from src.data.malformed import Reading, Row, clean_copy, encoding_of
from src.data.progress import announce, with_progress
from src.errors import InputError
from src.files import UTF8, encoding_name, is_text, open_binary, printable, raw_lines, unescaped, without_end

DELIMITERS = (",", ";", "\t", "|")
ROWS = 1000  # written at once
SHOWN = 60  # characters of a name
FIRST_ROWS = 20  # that tell how a table is likely written
SURVEYED = 10_000  # of a table that is streamed, to tell how it is written
# what of cp1252 is beyond ASCII in Western European prose: where a file has anything else, it is another encoding
WESTERN = re.compile(r"[ -~\sàâäáãåæçèéêëìíîïñòóôöõøœùúûüßÀÂÄÁÃÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÖÕØŒÙÚÛÜ„“”‘’–—…€«»°§©®£¡¿]*")


class MissingColumnError(InputError):
    """There is no ``column``."""

    column: str


@dataclass(frozen=True)
class Dialect:
    """How the rows of a table are written; quotes that are not quoting are part of the text."""

    delimiter: str
    quoted: bool
    encoding: str
    line_end: str


def readable_table(file: Path, columns: tuple[str, ...], reading: Reading, cache_dir: Path) -> Path:
    """Copy a table as Parquet, all columns of it text, without malformed rows; ``columns`` tell its delimiter."""
    dialect = dialect_of(file, columns, reading)
    rows = table_rows(file, dialect)
    header = next(rows)
    if header.reason is not None:
        raise InputError(f"the header of {file} is malformed ({header.reason}): {printable(header.raw)!r}")
    return clean_copy(file, ".parquet", dialect, rows, partial(_write_parquet, header.value), reading, cache_dir)


def check_names(source: str, names: Iterable[str], columns: Iterable[str], of_table: bool = False) -> None:
    """Refuse the names of columns, the first line of a table, without one that is needed."""
    for column in columns:
        if column not in names:
            shown = ", ".join(repr(name[:SHOWN]) for name in names)
            which = "its first line, which must name the columns," if of_table else "it"
            error = MissingColumnError(f"{source} has no column {column!r}: {which} has {shown}")
            error.column = column
            raise error


def _write_parquet(header: list[str], file: BinaryIO, rows: Iterator[Row]) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    seen: Counter[str] = Counter()
    names: list[str] = []
    for name in header:
        names.append(f"{name}.{seen[name]}" if seen[name] else name or f"Unnamed: {len(names)}")  # as pandas does
        seen[name] += 1
    schema = pa.schema([(name, pa.string()) for name in names])
    with ParquetWriter(file, schema) as writer:
        while group := [row.value for row in islice(rows, ROWS)]:
            writer.write_table(
                pa.table([pa.array(column, pa.string()) for column in zip(*group, strict=True)], schema=schema)
            )


def dialect_of(file: Path, columns: tuple[str, ...], reading: Reading, most: int | None = None) -> Dialect:
    """Choose delimiter, quotes and encoding: as asked, or as ending and header say; what is not usual is told.

    Args:
        most: rows that are looked at; all if None.
    """
    encoding = encoding_of(file, reading)
    with open_binary(file) as opened:
        start = opened.read(1 << 16)
    line_end = "\n" if b"\n" in start or b"\r" not in start else "\r"  # a table may be of an old Mac
    usual = "\t" if ".tsv" in file.name.lower() else ","
    if reading.delimiter is not None:
        delimiters = [unescaped(reading.delimiter)]
    else:
        delimiters = [usual, *(delimiter for delimiter in DELIMITERS if delimiter != usual)]
    # between tabs a quote is as good as any other character, until the rows say something else
    kinds = [
        (delimiter, quoted) for delimiter in delimiters for quoted in ((False, True) if delimiter == "\t" else (True,))
    ]
    candidates = [Dialect(delimiter, quoted, encoding, line_end) for delimiter, quoted in kinds]
    headers = {one: next(table_rows(file, one)) for one in candidates}
    fitting = [one for one, header in headers.items() if set(columns) <= set(map(_as_western, header.value))]
    dialect = fitting[0] if fitting else max(candidates, key=lambda one: _regularity(file, one))
    header = headers[dialect]
    if not fitting and header.reason is None:
        check_names(str(file), header.value, columns, of_table=True)
    survey = _survey(file, dialect, most)
    if replace(dialect, quoted=True) in fitting[1:]:
        other = _survey(file, replace(dialect, quoted=True), most)
        if other.bad < survey.bad or (other.bad == survey.bad and other.is_written):
            dialect, survey = replace(dialect, quoted=True), other
            announce(f"{file} is read with quotes around fields, which are no part of them")
    is_other = survey.invalid > reading.max_malformed * survey.rows or not is_text(header.raw)
    if reading.encoding is None and is_other and survey.is_western:
        dialect = replace(dialect, encoding="cp1252")
    for what, value, common in (("delimiter", dialect.delimiter, usual), ("encoding", dialect.encoding, UTF8)):
        if getattr(reading, what) is None and value != common:
            announce(f"{file} is read with the {what} {value!r}: set {what} where that is wrong")
    return dialect


def _as_western(name: str) -> str:
    """Read what is not UTF-8 as cp1252, which a survey of all rows is to confirm."""
    return name if is_text(name) else name.encode(UTF8, "surrogateescape").decode("cp1252", "replace")


def _regularity(file: Path, dialect: Dialect) -> tuple[bool, int]:
    """Tell whether a table has several columns under a dialect, and count the rows with all of them among the first."""
    rows = list(islice(table_rows(file, dialect), FIRST_ROWS))
    return len(rows[0].value) > 1, sum(row.reason is None for row in rows)


@dataclass
class _Survey:
    """What the rows of a table are like under a dialect."""

    rows: int = 0
    bad: int = 0
    invalid: int = 0  # not in the encoding
    quoted: int = 0  # with quotes around a field
    long: int = 0  # over several lines
    is_exact: bool = True  # just as they would be written with quotes
    is_western: bool = True  # what is not UTF-8 would be Western European prose in cp1252

    @property
    def is_written(self) -> bool:
        """Whether quotes were written around fields, and are not those of speech that begins in one row and ends in
        another."""
        return self.is_exact and self.quoted > 0 and (not self.long or self.quoted * 2 > self.rows)


def _survey(file: Path, dialect: Dialect, most: int | None) -> _Survey:
    found = _Survey()
    letters: Counter[bool] = Counter()
    for row in with_progress(islice(table_rows(file, dialect), most), f"looking through {file.name}"):
        found.rows += 1
        found.bad += row.reason is not None
        if '"' in row.raw and dialect.quoted:
            text = without_end(row.raw)
            found.quoted += 1
            found.long += "\n" in text
            found.is_exact &= text == _written(row.value, dialect.delimiter)
        if is_text(row.raw):
            found.is_western &= row.raw.isascii()  # UTF-8 and something else in one file
            continue
        found.invalid += 1
        try:
            text = row.raw.encode(UTF8, errors="surrogateescape").decode("cp1252")
        except UnicodeError:
            text = "\x00"
        found.is_western &= WESTERN.fullmatch(text) is not None
        letters.update(character.isascii() for character in text if character.isalpha())
    found.is_western &= dialect.encoding == UTF8 and letters[False] * 2 < letters[True]
    return found


def _written(fields: list[str], delimiter: str) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator="").writerow(fields)
    return out.getvalue()


def table_rows(file: Path, dialect: Dialect) -> Iterator[Row]:
    """Yield the rows of a table, the header first: its value is the names."""
    csv.field_size_limit(sys.maxsize)
    lines = raw_lines(open_binary(file), dialect.encoding, dialect.line_end)
    records = _quoted(lines, dialect.delimiter) if dialect.quoted else _unquoted(lines, dialect.delimiter)
    width = None
    for number, (fields, raw) in enumerate(records, start=1):
        width = len(fields or []) if width is None else width
        reason = None
        if not is_text(raw):
            reason = f"invalid {encoding_name(dialect.encoding)}"
        elif fields is None:
            reason = "unclosed quote"
        elif len(fields) != width:
            reason = "wrong number of fields"
        yield Row(number, fields or [], raw, reason)
    if width is None:
        raise InputError(f"the file {file} has no rows")


def _unquoted(lines: Iterable[str], delimiter: str) -> Iterator[tuple[list[str], str]]:
    for line in lines:
        if text := without_end(line):
            yield text.split(delimiter), line


def _quoted(lines: Iterator[str], delimiter: str) -> Iterator[tuple[list[str] | None, str]]:
    """Yield records whose fields may be in quotes, with line feeds in them.

    Where a quote is not closed as it should be, its line alone is given up, and reading goes on with the next: else it
    would swallow all rows up to another quote.
    """
    pending: deque[str] = deque()
    width = None
    while True:
        fed: list[str] = []

        def feed(fed: list[str] = fed) -> Iterator[str]:
            while (line := pending.popleft() if pending else next(lines, None)) is not None:
                fed.append(line)
                yield line

        fields: list[str] | None = None
        with suppress(csv.Error):
            fields = next(csv.reader(feed(), delimiter=delimiter, strict=True), None)
        if not fed:
            return
        width = width or len(fields or [])
        if fields is None or (len(fields) != width and len(fed) > 1):
            fields = None
            pending.extendleft(reversed(fed[1:]))
            del fed[1:]
        if fields != []:  # a blank line is no row
            yield fields, "".join(fed)
