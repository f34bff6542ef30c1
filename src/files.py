"""Reading text files, plain or gzipped, with errors that say where; writing files whole; noticing damage."""

import codecs
import gzip
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, cast

from src.errors import InputError


def open_binary(path: Path) -> BinaryIO:
    """A file to read as bytes, unpacked if it is a ``.gz``."""
    return cast(BinaryIO, gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def check_folder_of(path: Path) -> None:
    """Whether there is a folder to write a file into.

    Raises:
        InputError: there is none, or the file's name is that of a folder itself.
    """
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to write {path.name} into")
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file")


def check_file(path: Path, is_text: bool, encoding: str = "utf-8") -> None:
    """Whether a file can be read and has something in it.

    Raises:
        InputError: it is missing, empty, or (where it should be text) not in its encoding, with the place of the first
            bad byte.
    """
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
        place = size - (len(error.object) - len(chunk)) + error.start
        line += error.object[: error.start].count(b"\n")
        name = "UTF-8" if encoding == "utf-8" else encoding
        raise InputError(
            f"the file {path} is not {name}: byte {place:,}, on line {line:,}; convert it first"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"the file {path} cannot be read: {error}") from error


def write_atomically(path: Path, text: str) -> None:
    """Write a file, whole or not at all, even if the machine stops: aside, flushed to the disk, and renamed."""
    aside = path.with_name(path.name + ".part")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    flush(path.parent)


def flush(folder: Path) -> None:
    """Have the names in a folder, and the files directly in it, on the disk before anything else happens."""
    for path in (*(path for path in folder.iterdir() if path.is_file()), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def checksums(paths: Iterable[Path]) -> dict[str, list[int]]:
    """The size and the CRC-32 of files, by their names: see :func:`damaged`."""
    return {path.name: [path.stat().st_size, _crc32(path)] for path in sorted(paths)}


def damaged(folder: Path, expected: dict[str, list[int]], since: int) -> str | None:
    """The first file of a folder that is missing or not as :func:`checksums` found it; null where all are.

    Args:
        folder: of the files.
        expected: what :func:`checksums` gave.
        since: files that were not changed after this time, in nanoseconds, are known by their size alone, so that
            opening large ones takes no time.
    """
    for name, (size, checksum) in expected.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return name
        if path.stat().st_mtime_ns > since and _crc32(path) != checksum:
            return name
    return None


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 24):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
