"""A part of an index that is written once: documents, their passages, and the passages' words and vectors."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from src.extras.retrieval.dense import Dense, Kind, Vectors, write_vectors
from src.extras.retrieval.manifest import Part

DOCUMENTS, PASSAGES, VECTORS = "documents.arrow", "passages.arrow", "vectors.faiss"


class Passage(NamedTuple):
    """A piece of a document: ``text`` is that of the document from character ``start`` to ``end``."""

    source: str
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Content:
    """What a segment is written from.

    Args:
        documents: columns ``source``, ``digest`` and ``text``.
        passages: columns ``document`` (its row), ``start``, ``end`` and ``words``.
        vectors: (passages, dimension), or null where there is no encoder.
    """

    documents: pa.Table
    passages: pa.Table
    vectors: Vectors | None

    def __len__(self) -> int:
        return self.passages.num_rows


def digest(text: str) -> str:
    """By which a text is known again."""
    return sha256(text.encode()).hexdigest()[:16]


def make_content(
    sources: list[str], texts: list[str], spans: list[list[tuple[int, int]]], words: Any, vectors: Vectors | None
) -> Content:
    """Documents with the spans of their passages; words and vectors of all passages, in order."""
    flat = [(i, start, end) for i, of_one in enumerate(spans) for start, end in of_one]
    numbers, starts, ends = (list(column) for column in zip(*flat, strict=True)) if flat else ([], [], [])
    documents = {"source": sources, "digest": [digest(text) for text in texts], "text": texts}
    passages = {"document": numbers, "start": starts, "end": ends, "words": words}
    return Content(pa.table(documents, DOCUMENT_SCHEMA), pa.table(passages, PASSAGE_SCHEMA), vectors)


DOCUMENT_SCHEMA = pa.schema({"source": pa.string(), "digest": pa.string(), "text": pa.large_string()})
PASSAGE_SCHEMA = pa.schema(
    {"document": pa.int32(), "start": pa.int64(), "end": pa.int64(), "words": pa.large_list(pa.string())}
)


def join(first: Content, second: Content) -> Content:
    """Two contents as one."""
    numbers = pa.array(second.passages["document"].to_numpy() + first.documents.num_rows, pa.int32())
    passages = second.passages.set_column(0, "document", numbers)
    vectors = None
    if first.vectors is not None and second.vectors is not None:
        vectors = np.concatenate([first.vectors, second.vectors])
    return Content(
        pa.concat_tables([first.documents, second.documents]), pa.concat_tables([first.passages, passages]), vectors
    )


def write_segment(content: Content, kind: Kind, folder: Path) -> None:
    """Write a segment into a folder that is there."""
    for name, table in ((DOCUMENTS, content.documents), (PASSAGES, content.passages)):
        with pa.ipc.new_file(folder / name, table.schema) as writer:
            writer.write_table(table)
    if content.vectors is not None:
        write_vectors(content.vectors, kind, folder / VECTORS)


class Segment:
    """A segment, memory-mapped.

    Args:
        folder: that :func:`write_segment` wrote into.
        part: what the manifest says of it.
    """

    def __init__(self, folder: Path, part: Part) -> None:
        self.part, self.deleted = part, list(part.deleted)
        self._documents, self._passages = (_read(folder / name) for name in (DOCUMENTS, PASSAGES))
        vectors = folder / VECTORS
        self.dense = Dense(vectors) if vectors.is_file() else None
        self.sources: list[str] = self._documents["source"].to_pylist()
        self.digests: list[str] = self._documents["digest"].to_pylist()
        self.document_of = self._passages["document"].to_numpy()

    def __len__(self) -> int:
        """All passages, the deleted ones among them."""
        return self._passages.num_rows

    def alive(self) -> NDArray[np.bool_]:
        """Which passages are not deleted."""
        return ~np.isin(self.document_of, self.deleted)

    def documents(self) -> dict[str, int]:
        """The rows of the documents that are not deleted, by their names."""
        gone = set(self.deleted)
        return {source: i for i, source in enumerate(self.sources) if i not in gone}

    def span(self, number: int) -> tuple[str, int, int]:
        """Source, start and end of a passage."""
        start, end = (self._passages[name][number].as_py() for name in ("start", "end"))
        return self.sources[self.document_of[number]], start, end

    def passage(self, number: int) -> Passage:
        """A passage with its text."""
        source, start, end = self.span(number)
        text: str = self._documents["text"][int(self.document_of[number])].as_py()
        return Passage(source, start, end, text[start:end])

    def words(self) -> list[list[str]]:
        """The words of each passage that is not deleted."""
        return self._passages["words"].filter(pa.array(self.alive())).to_pylist()

    def content(self) -> Content:
        """All that is not deleted."""
        kept = ~np.isin(np.arange(len(self.sources)), self.deleted)
        alive, renumbered = self.alive(), np.cumsum(kept) - 1
        passages = self._passages.filter(pa.array(alive))
        numbers = pa.array(renumbered[self.document_of[alive]], pa.int32())
        vectors = self.dense.vectors()[alive] if self.dense else None
        return Content(self._documents.filter(pa.array(kept)), passages.set_column(0, "document", numbers), vectors)


def _read(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
