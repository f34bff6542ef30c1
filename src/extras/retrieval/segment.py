"""A part of an index that is written once: documents, their passages, and the passages' words and vectors."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from src.extras.retrieval.dense import Dense, Kind, write_vectors
from src.extras.retrieval.index_files import Part
from src.extras.retrieval.passages import Content, Passage

DOCUMENTS, PASSAGES, VECTORS = "documents.arrow", "passages.arrow", "vectors.faiss"


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

    @property
    def n_alive(self) -> int:
        """How many passages are not deleted."""
        return int(self.alive().sum())

    def alive(self) -> NDArray[np.bool_]:
        """Which passages are not deleted."""
        return ~np.isin(self.document_of, self.deleted)

    def documents(self) -> dict[str, int]:
        """The rows of the documents that are not deleted, by their names."""
        gone = set(self.deleted)
        return {source: i for i, source in enumerate(self.sources) if i not in gone}

    def span(self, row: int) -> tuple[str, int, int]:
        """Source, start and end of a passage."""
        start, end = (self._passages[name][row].as_py() for name in ("start", "end"))
        return self.sources[self.document_of[row]], start, end

    def passage(self, row: int) -> Passage:
        """A passage with its text."""
        source, start, end = self.span(row)
        text: str = self._documents["text"][int(self.document_of[row])].as_py()
        return Passage(source, start, end, text[start:end])

    def words(self) -> list[list[str]]:
        """The words of each passage that is not deleted."""
        return self._passages["words"].filter(pa.array(self.alive())).to_pylist()

    def content(self) -> Content:
        """All that is not deleted."""
        kept = ~np.isin(np.arange(len(self.sources)), self.deleted)
        alive, renumbered = self.alive(), np.cumsum(kept) - 1
        passages = self._passages.filter(pa.array(alive))
        rows = pa.array(renumbered[self.document_of[alive]], pa.int32())
        vectors = self.dense.vectors()[alive] if self.dense else None
        return Content(self._documents.filter(pa.array(kept)), passages.set_column(0, "document", rows), vectors)


def _read(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
