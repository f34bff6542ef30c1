"""The one file of an index that says what belongs to it; replacing it is what makes a change happen."""

import json
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from src.atomic import atomic_file
from src.errors import InputError

Kind = Literal["flat", "hnsw", "ivf"]  # of a search for vectors: exact, by a graph, by cells
Mode = Literal["bm25", "dense", "hybrid"]  # of a search: by words, by vectors, by both

FORMAT = 2
MANIFEST, NEW_MANIFEST, LOCK = "manifest.json", "manifest.json.part", ".lock"
PARTS = r"segment-\d+-\d+|bm25-\d+"  # folders of an index


@dataclass(frozen=True)
class Settings:
    """How an index is made, the same for all that is ever added to it.

    Args:
        encoder: the checkpoint of the encoder as it was named; None for BM25 alone.
        checksum: of the encoder.
        dimension: of its vectors.
        passage_len: tokens of a passage.
        overlap: tokens that a passage shares with the one before it.
        kind: of the search for vectors.
        stemmer: language of the words of BM25.
    """

    encoder: str | None
    checksum: str | None
    dimension: int | None
    passage_len: int
    overlap: int
    kind: Kind
    stemmer: str


@dataclass(frozen=True)
class Part:
    """A folder of an index: its name, the size and checksum of each file, and what is deleted from it."""

    name: str
    files: dict[str, list[int]]
    deleted: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Manifest:
    """What belongs to an index.

    Args:
        settings: how it is made.
        generation: counts the changes.
        segments: the folders of documents.
        lexical: the folder of BM25 over the passages that are not deleted; None where there are none.
    """

    settings: Settings
    generation: int
    segments: list[Part]
    lexical: Part | None

    @property
    def parts(self) -> list[Part]:
        """All folders."""
        return [*self.segments, *([self.lexical] if self.lexical else [])]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make a change happen, atomically."""
    content = {"format": FORMAT, **asdict(manifest)}
    with atomic_file(folder / MANIFEST, folder / NEW_MANIFEST) as file:
        file.write(json.dumps({"content": content, "crc32": _crc32(content)}, indent=1).encode())


def _crc32(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def read_manifest(folder: Path) -> Manifest:
    """Read what belongs to the index in a folder."""
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"there is no index in {folder}: make one by rag index --output {folder}")
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        content = held["content"]
        if _crc32(content) != held["crc32"]:
            raise ValueError("its checksum is another one")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"the index {folder} is damaged ({MANIFEST}): make it anew") from error
    if content["format"] != FORMAT:
        raise InputError(f"the index {folder} has format {content['format']}, not {FORMAT}: make it anew")
    lexical = content["lexical"]
    return Manifest(
        Settings(**content["settings"]),
        content["generation"],
        [Part(**part) for part in content["segments"]],
        Part(**lexical) if lexical else None,
    )


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Be the only one who changes the index in a folder, which is made if need be; another process is refused.

    What a killed process has left there is removed, before and after; and so is a folder that was made for nothing.
    """
    if folder.exists() and not (folder / MANIFEST).is_file():
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else [folder.name]
        if foreign := [name for name in names if name not in (LOCK, NEW_MANIFEST) and not re.fullmatch(PARTS, name)]:
            raise InputError(f"{folder} holds {foreign[0]} and no index: name another folder")
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK, timeout=0):
            try:
                _clean(folder)
                yield
                _clean(folder)
            finally:
                if made and not (folder / MANIFEST).is_file():
                    shutil.rmtree(folder)
    except Timeout as error:
        raise InputError(f"another process is changing the index {folder}: wait for it") from error
    except OSError as error:
        raise InputError(f"the index {folder} cannot be written: {error}") from error


def _clean(folder: Path) -> None:
    kept = {part.name for part in read_manifest(folder).parts} if (folder / MANIFEST).is_file() else set()
    for path in folder.iterdir():
        if re.fullmatch(PARTS, path.name) and path.name not in kept:
            shutil.rmtree(path)
