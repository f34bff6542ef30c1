"""Lines of text: what ends one, what is part of it, and what is done about bytes that are no text.

Only a line feed, alone or behind a carriage return, ends a line: a form feed, U+0085 and U+2028 are characters of a
text like any other, which `str.splitlines` does not know. A byte order mark at the beginning is never part of the text.
"""

import codecs
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from src.errors import InputError
from src.files import open_binary

UTF8 = "utf-8"
INVALID = re.compile(r"[\ud800-\udfff]")  # a byte that could not be decoded, or half a character out of JSON


def decoding(encoding: str) -> str:
    """The name of a codec that leaves a byte order mark out of the text.

    Raises:
        InputError: there is no such encoding.
    """
    try:
        name = codecs.lookup(encoding).name
    except LookupError as error:
        raise InputError(f"encoding is {encoding!r}: name one that Python knows, such as utf-8 or cp1252") from error
    return "utf-8-sig" if name == UTF8 else name


def is_text(text: str) -> bool:
    """Whether all of it can be written as UTF-8: no invalid byte, no lone surrogate."""
    return text.isascii() or INVALID.search(text) is None


def decode(content: bytes, encoding: str = UTF8) -> str:
    """The text of a file; bytes that are invalid in it as lone surrogates, see :func:`is_text`."""
    return content.decode(decoding(encoding), errors="surrogateescape")


def raw_lines(stream: BinaryIO, encoding: str = UTF8, end: str = "\n") -> Iterator[str]:
    """The lines of a stream with their ends; invalid bytes as lone surrogates, see :func:`is_text`."""
    with io.TextIOWrapper(stream, decoding(encoding), errors="surrogateescape", newline=end) as lines:
        yield from lines


def unescaped(text: str) -> str:
    """A text with the line feeds, tabs and carriage returns that it has as escapes, as a shell passes them on."""
    for escape, character in (("\\n", "\n"), ("\\t", "\t"), ("\\r", "\r")):
        text = text.replace(escape, character)
    return text


def without_end(line: str) -> str:
    """A line without what ends it."""
    return line.removesuffix("\n").removesuffix("\r")


def read_lines(path: Path | None, *, strict: bool = True, encoding: str = UTF8) -> Iterator[str]:
    """The lines of a file of text, which may be a ``.gz``, or of standard input, without their ends.

    Args:
        path: of the file; None for standard input.
        strict: whether invalid bytes are refused; else they are lone surrogates, see :func:`is_text`.
        encoding: of the text.

    Raises:
        InputError: under ``strict``, a line is not in the encoding.
    """
    stream = sys.stdin.buffer if path is None else open_binary(path)
    for number, line in enumerate(raw_lines(stream, encoding), start=1):
        if strict and not is_text(line):
            raise InputError(
                f"line {number:,} of {path or 'standard input'} is not UTF-8: {printable(line)!r}; convert it first"
            )
        yield without_end(line)


def printable(text: str, length: int = 60) -> str:
    """The beginning of a text, for people: invalid bytes as the replacement character."""
    return INVALID.sub("\ufffd", text[:length]).strip()
