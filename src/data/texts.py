"""Text files as documents, read a piece at a time: what is in memory does not grow with the file."""

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from src.data.malformed import Malformed, Reading
from src.data.progress import announce
from src.errors import InputError
from src.files import UTF8, check_file, encoding_name, is_text, open_binary, printable, read_chunks, unescaped

T = TypeVar("T")

PIECE = 1 << 16  # characters of a piece at most
STREAMED = 1 << 20  # of a document of a stream of text files
GROUP, GROUP_CHARACTERS = 1000, 1 << 18  # pieces and characters that a core tokenises at once


class Piece(NamedTuple):
    """A part of a document, or all of it."""

    text: str
    is_last: bool = True  # of its document


class PieceLike(Protocol):
    """A piece, and perhaps more."""

    @property
    def text(self) -> str: ...

    @property
    def is_last(self) -> bool: ...


def cut(text: str, most: int = PIECE) -> Iterator[Piece]:
    """Cut a document into pieces of at most so many characters.

    A piece ends before the white space of a blank line, else before that of another line break, else before any other;
    a half of a piece without any white space, or of nothing else, is cut anywhere. A pre-tokenizer that begins a token
    where white space begins, as those of GPT-2 and BERT do, gives the pieces the tokens of the whole, except there.
    Another one, such as SentencePiece's, which puts a space before a text, may give other tokens at a cut.
    """
    start = 0
    while len(text) - start > most:
        end = _end_of_piece(text, start, most)
        yield Piece(text[start:end], is_last=False)
        start = end
    yield Piece(text[start:])


def _end_of_piece(text: str, start: int, most: int) -> int:
    half, end = start + most // 2, start + most
    begun_word = "" if text[end - 1].isspace() else text[half:end].rsplit(maxsplit=1)[-1]
    for found in (
        *(text.rfind(line_break, half, end) for line_break in ("\n\n", "\n\r\n", "\n")),
        end - len(begun_word),
    ):
        before = start + len(text[start:found].rstrip()) if found >= 0 else start
        if before > half:
            return before
    return end


def grouped(
    items: Iterable[T],
    most: int = GROUP,
    size: Callable[[T], int] = lambda piece: len(piece.text),  # type: ignore[attr-defined]
) -> Iterator[list[T]]:
    """Gather pieces, or other items, to groups of about :data:`GROUP_CHARACTERS` and at most ``most`` of them."""
    group: list[T] = []
    held = 0
    for item in items:
        group.append(item)
        held += size(item)
        if len(group) == most or held >= GROUP_CHARACTERS:
            yield group
            group, held = [], 0
    if group:
        yield group


def read_documents(file: Path, separator: str | None, encoding: str, most: int = PIECE) -> Iterator[Piece]:
    """Read the documents of a text file in pieces, whatever its size; invalid bytes become lone surrogates."""
    divide, literal = _pattern(separator), unescaped(separator or "")
    held = ""
    try:
        with open_binary(file) as opened:
            for chunk in read_chunks(opened, encoding):
                held += chunk
                # the pattern finds carriage returns too, and takes 50 times as long
                *ended, held = (divide.split(held) if "\r" in held else held.split(literal)) if divide else [held]
                for text in ended:
                    yield from cut(text, most)
                # what stays is longer than a separator, which might begin in one chunk and end in the next
                *begun, held = _full_pieces(held, most)
                yield from (Piece(text, is_last=False) for text in begun)
        yield from cut(held, most)
    except (OSError, EOFError, zlib.error):  # a damaged .gz
        check_file(file, is_text=True)
        raise


def _pattern(separator: str | None) -> re.Pattern[str] | None:
    if separator is None:
        return None
    return re.compile(re.escape(unescaped(separator)).replace("\\\n", "\r?\n"))


def _full_pieces(text: str, most: int) -> Iterator[str]:
    """Yield the pieces of the beginning of a document, and what is left of it, longer than a piece."""
    start = 0
    while len(text) - start > 2 * most:
        end = _end_of_piece(text, start, most)
        yield text[start:end]
        start = end
    yield text[start:]


@dataclass(frozen=True)
class TextFiles:
    """The documents of text files, read anew at each iteration, as rows ``text`` and ``is_last``: pieces of them.

    Args:
        files: in order.
        separator: what stands between documents; none for one document a file.
        encoding: of the files.
        numbers: of the documents among all those of the files, from 0, ascending.
    """

    files: tuple[Path, ...]
    separator: str | None
    encoding: str
    numbers: NDArray[np.int64]

    @classmethod
    def open(cls, files: Iterable[Path], separator: str | None, reading: Reading) -> "TextFiles":
        """Count the documents of files, without those that are not in the encoding, which are told."""
        paths, encoding = tuple(files), reading.encoding or UTF8
        numbers: list[int] = []
        number = 0
        for file in paths:
            check_file(file, is_text=False)
            if separator is None:
                reading.check_text(file)
                numbers.append(number)
                number += 1
                continue
            first, malformed = number, Malformed(str(file), reading)
            begin, is_good = "", True
            for text, is_last in read_documents(file, separator, encoding):
                begin = begin or text
                is_good &= is_text(text)
                if not is_last:
                    continue
                if is_good:
                    numbers.append(number)
                else:
                    malformed.add(
                        f"invalid {encoding_name(encoding)}", f"document {number - first + 1:,}", printable(begin)
                    )
                begin, is_good, number = "", True, number + 1
            if number == first + 1:
                announce(f"{file} has no document_separator {separator!r}: it is one document")
            malformed.announce(of=number - first)
        return cls(paths, separator, encoding, np.array(numbers, np.int64))

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        wanted, number = iter(self.numbers.tolist()), 0
        looked_for = next(wanted, None)
        for file in self.files:
            if looked_for is None:
                return
            if self.separator is None and looked_for != number:  # a file is a document
                number += 1
                continue
            for piece in read_documents(file, self.separator, self.encoding):
                if number == looked_for:
                    yield piece._asdict()
                if piece.is_last:
                    looked_for = next(wanted, None) if number == looked_for else looked_for
                    number += 1

    def select(self, indices: NDArray[np.int64]) -> "TextFiles":
        """Choose documents by their indices, ascending."""
        return replace(self, numbers=self.numbers[indices])

    def take(self, n: int) -> "TextFiles":
        """Choose the first documents."""
        return replace(self, numbers=self.numbers[:n])


def stream_documents(
    files: list[Path], separator: str | None, reading: Reading, column: str
) -> Iterator[dict[str, str]]:
    """Yield the documents of text files as rows with one column, longer ones as several, without looking ahead."""
    encoding = reading.encoding or UTF8
    for file in files:
        check_file(file, is_text=False)
        malformed, count = Malformed(str(file), reading), 0
        for count, (text, _) in enumerate(read_documents(file, separator, encoding, STREAMED), start=1):
            if is_text(text):
                yield {column: text}
                continue
            if separator is None:
                reading.check_text(file)  # says where
            malformed.add(f"invalid {encoding_name(encoding)}", f"document {count:,}", printable(text))
        for line in malformed.report(of=count):
            print(line)


class PartOfEach:
    """A part of each of some documents, read as it is needed, as rows ``text`` and ``is_last``.

    Args:
        rows: pieces of the documents, which can be read again.
        bounds: (documents, 2), the first character of each part, and the one after its last.
    """

    def __init__(self, rows: Iterable[Piece], bounds: NDArray[np.int64]) -> None:
        self.rows, self.bounds = rows, bounds

    def __len__(self) -> int:
        return len(self.bounds)

    def select(self, indices: NDArray[np.int64]) -> "PartOfEach":
        """Refuse to choose documents: there are few, and each is in every split."""
        raise InputError(
            f"there are {len(self)} documents, too few for several machines: name a document_separator, or more files"
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        document, position = 0, 0
        for text, is_last in self.rows:
            low, high = (int(bound) for bound in self.bounds[document])
            part = text[max(low - position, 0) : max(high - position, 0)]
            position += len(text)
            if part or (is_last and low == high):
                yield {"text": part, "is_last": position >= high}
            if is_last:
                document, position = document + 1, 0


def cut_by_position(pieces: Iterable[Piece], wanted: dict[str, float]) -> dict[str, PartOfEach]:
    """Take training text from the front of each document, then validation, then test.

    Args:
        pieces: of the documents, which can be read again.
        wanted: the fraction of each split but ``train``.
    """
    lengths = [0]
    for text, is_last in pieces:
        lengths[-1] += len(text)
        if is_last:
            lengths.append(0)
    found: dict[str, PartOfEach] = {}
    start, end_fraction = np.zeros(len(lengths) - 1, np.int64), 0.0
    for name, fraction in {"train": 1 - sum(wanted.values()), **wanted}.items():
        end_fraction += fraction
        end = np.array([int(round(length * end_fraction, 6)) for length in lengths[:-1]], np.int64)
        found[name] = PartOfEach(pieces, np.stack([start, end], 1))
        start = end
    return found
