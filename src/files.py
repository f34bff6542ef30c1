"""Text files, plain or gzipped: reading them by lines, and errors that say where.

Only a line feed, alone or behind a carriage return, ends a line: a form feed, U+0085 and U+2028 are characters of a
text like any other, which `str.splitlines` does not know. A byte order mark at the beginning is never part of the text.
"""

import codecs
import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from src.errors import InputError

UTF8 = "utf-8"
INVALID = re.compile(r"[\ud800-\udfff]")  # a byte that could not be decoded, or half a character out of JSON


def open_binary(path: Path) -> BinaryIO:
    """Open a file to read as bytes, unpacked if it is a ``.gz``."""
    return cast(BinaryIO, gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def check_folder_of(path: Path) -> None:
    """Refuse a file to write whose folder is missing, or whose name is that of a folder."""
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to write {path.name} into")
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file")


def check_new(*paths: Path) -> None:
    """Refuse to write over a file that is there already, or into a folder that is not there."""
    for path in paths:
        check_folder_of(path)
        if path.exists() or path.is_symlink():
            raise InputError(f"{path} is there already: name another --output, or remove it")


def check_file(path: Path, is_text: bool, encoding: str = UTF8, remedy: str = "convert it first") -> None:
    """Refuse a file that is missing, empty, or (where it should be text) not in its encoding; say the remedy."""
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    if path.stat().st_size == 0:
        raise InputError(f"the file {path} is empty")
    if not is_text:
        return
    decoder, size, line = codecs.getincrementaldecoder(encoding)(), 0, 1
    try:
        with open_binary(path) as file:
            while chunk := file.read(1 << 20):
                decoder.decode(chunk)
                size, line = size + len(chunk), line + chunk.count(b"\n")
            chunk = b""
            decoder.decode(chunk, final=True)
    except UnicodeDecodeError as error:
        # the decoder had held back the bytes of a character that the chunk before cut in two
        position = size - (len(error.object) - len(chunk)) + error.start
        line += error.object[: error.start].count(b"\n")
        raise InputError(
            f"the file {path} is not {encoding_name(encoding)}: byte {position:,}, on line {line:,}; {remedy}"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"the file {path} cannot be read: {error}") from error


def encoding_name(encoding: str) -> str:
    """Name an encoding for people."""
    return "UTF-8" if encoding == UTF8 else encoding


def codec_of(encoding: str) -> str:
    """Name the codec of an encoding that leaves a byte order mark out of the text; refuse an unknown encoding."""
    try:
        name = codecs.lookup(encoding).name
    except LookupError as error:
        raise InputError(f"encoding is {encoding!r}: name one that Python knows, such as utf-8 or cp1252") from error
    return "utf-8-sig" if name == UTF8 else name


def is_text(text: str) -> bool:
    """Tell whether all of it can be written as UTF-8: no invalid byte, no lone surrogate."""
    return text.isascii() or INVALID.search(text) is None


def decode(content: bytes, encoding: str = UTF8) -> str:
    """Decode the content of a file; invalid bytes become lone surrogates, see :func:`is_text`."""
    return content.decode(codec_of(encoding), errors="surrogateescape")


def raw_lines(stream: BinaryIO, encoding: str = UTF8, end: str = "\n") -> Iterator[str]:
    """Yield the lines of a stream with their ends; invalid bytes as lone surrogates, see :func:`is_text`."""
    codec = codec_of(encoding)
    is_utf8 = codec == "utf-8-sig"  # which loses a file that is but the beginning of a byte order mark
    with io.TextIOWrapper(stream, UTF8 if is_utf8 else codec, errors="surrogateescape", newline=end) as lines:
        first = next(lines, "")
        if is_utf8:
            first = first.removeprefix("\ufeff")
        if first:
            yield first
        yield from lines


def read_chunks(stream: BinaryIO, encoding: str = UTF8, size: int = 1 << 20) -> Iterator[str]:
    """Yield the text of a stream, so many characters at a time; invalid bytes as lone surrogates."""
    codec = codec_of(encoding)
    is_utf8 = codec == "utf-8-sig"  # see raw_lines
    with io.TextIOWrapper(stream, UTF8 if is_utf8 else codec, errors="surrogateescape", newline="") as text:
        chunk = text.read(size)
        yield chunk.removeprefix("\ufeff") if is_utf8 else chunk
        while chunk := text.read(size):
            yield chunk


def read_lines(path: Path | None, *, strict: bool = True, encoding: str = UTF8) -> Iterator[str]:
    """Yield the lines of a file of text, which may be a ``.gz``, or of standard input, without their ends.

    Args:
        path: of the file; None for standard input.
        strict: whether invalid bytes are refused; else they are lone surrogates, see :func:`is_text`.
        encoding: of the text.
    """
    stream = sys.stdin.buffer if path is None else open_binary(path)
    for number, line in enumerate(raw_lines(stream, encoding), start=1):
        if strict and not is_text(line):
            raise InputError(
                f"line {number:,} of {path or 'standard input'} is not UTF-8: {printable(line)!r}; convert it first"
            )
        yield without_end(line)


def without_end(line: str) -> str:
    """Strip what ends a line."""
    return line.removesuffix("\n").removesuffix("\r")


def unescaped(text: str) -> str:
    """Replace the escapes of line feeds, tabs and carriage returns, which a shell passes on as they are."""
    for escape, character in (("\\n", "\n"), ("\\t", "\t"), ("\\r", "\r")):
        text = text.replace(escape, character)
    return text


def counted(count: int, what: str) -> str:
    """Write a count of what the first word names in the plural."""
    first, *rest = what.split(" ")
    return " ".join([f"{count:,}", re.sub(r"(?<=ch)es$|s$", "", first) if count == 1 else first, *rest])


def printable(text: str) -> str:
    """Show the first 60 characters of a text: invalid bytes as the replacement character."""
    return INVALID.sub("\ufffd", text[:60]).strip()
