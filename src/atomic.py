"""Files and folders that are whole or not there at all, whatever happens while they are written."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from src.errors import InputError


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes its name when it is whole and on the disk; until then what was there stays.

    Raises:
        InputError: it cannot be written; nothing is left of it.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file")
    aside = path.with_name(f"{path.name}.part")
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_file(path) as file:
        file.write(text.encode())


def sync_folder(folder: Path) -> None:
    """See to it that the names in a folder are on the disk, as a file's own flushing does not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(aside: Path, path: Path) -> None:
    """Let a folder that is whole take a name that may be in use.

    No system call swaps two folders everywhere, so for a moment both have other names: ``NAME.part`` the new one, and
    ``NAME.old`` the old one.
    """
    for file in aside.rglob("*"):
        if file.is_file():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        else:
            sync_folder(file)
    old = path.with_name(f"{path.name}.old")
    remove(old)
    if path.exists():
        path.rename(old)
    aside.rename(path)
    sync_folder(path.parent)
    remove(old)


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
