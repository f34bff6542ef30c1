"""Files and folders that are complete or not there at all, whatever happens while they are written; their checksums."""

import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from src.errors import InputError


def _unused(path: Path) -> Path:
    """Make a name beside a path that nothing has."""
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")


@contextmanager
def atomic_file(path: Path, aside: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file to write that takes its name when it is complete and on the disk; until then what was there stays.

    Args:
        path: of the file.
        aside: where it is written, over what a killed process left there; None for a name that nothing has.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no file but a folder or a device: name a file")
    aside = aside or _unused(path)
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        _sync(path.parent)
    except (OSError, RuntimeError) as error:
        # after a failed write torch.save fails once more, in ending its archive
        fault = error.__context__ if isinstance(error, RuntimeError) else error
        if not isinstance(fault, OSError):
            raise
        raise InputError(f"{path} cannot be written: {fault.strerror or fault}") from error
    finally:
        with suppress(OSError):
            aside.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_file(path) as file:
        file.write(text.encode())


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Make a folder, or fill an empty one, which takes its name when all that is written into it is on the disk."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path} is there already and not empty: name another folder, or remove it")
    target = Path(os.path.realpath(path))  # a link to an empty folder stays one
    aside = _unused(target)
    try:
        aside.mkdir(parents=True)
        yield aside
        sync_folder(aside)
        aside.rename(target)
        _sync(target.parent)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def replace_folder(aside: Path, path: Path) -> None:
    """Let a complete folder take a name that may be in use.

    No system call swaps two folders everywhere, so for a moment both have other names: ``NAME.part`` the new one, and
    ``NAME.old`` the old one.
    """
    sync_folder(aside)
    old = path.with_name(f"{path.name}.old")
    remove(old)
    if path.exists():
        path.rename(old)
    aside.rename(path)
    _sync(path.parent)
    remove(old)


def link(path: Path, name: Path) -> None:
    """Give a file or folder that is complete a second name, atomically where that is of a file, or of nothing."""
    aside = name.with_name(f"{name.name}.part")
    remove(aside)
    if path.is_dir():
        shutil.copytree(path, aside, copy_function=_link)
        replace_folder(aside, name)
    elif name.is_dir():
        _link(path, aside)
        replace_folder(aside, name)
    else:
        _link(path, aside)
        aside.replace(name)
        remove(aside)  # which is still there if both names were of one file before
        _sync(name.parent)


def _link(path: str | Path, name: str | Path) -> None:
    """Make a hard link, or a copy on a file system without them."""
    try:
        os.link(path, name)
    except OSError:
        shutil.copy2(path, name)
        _sync(Path(name))


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Have a folder on the disk, with the files and folders in it, before anything else happens."""
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    """Flush a file, or the names in a folder, which the flushing of the files does not cover."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksums(folder: Path, rank: int = 0, world_size: int = 1) -> dict[str, list[int]]:
    """Map the files of a folder by their names in it to their size and CRC-32, by which :func:`damaged` knows them.

    Of several processes each reads some of the files.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())[rank::world_size]
    return {path.relative_to(folder).as_posix(): [path.stat().st_size, _crc32(path)] for path in files}


def damaged(folder: Path, expected: dict[str, list[int]], since: int = 0) -> str | None:
    """Name the first file of a folder that is missing or not as :func:`checksums` found it; None where all are.

    Args:
        folder: of the files.
        expected: what :func:`checksums` gave.
        since: files that were last changed before this time, in nanoseconds, are known by their size alone, so that
            opening large ones takes no time.
    """
    for name, (size, checksum) in expected.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return name
        if path.stat().st_mtime_ns >= since and _crc32(path) != checksum:
            return name
    return None


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 24):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
