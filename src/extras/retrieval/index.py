"""An index of passages, opened to be searched, and the segments that it is made of."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from src.atomic import damaged
from src.encoder import Encoder
from src.errors import InputError
from src.extras.retrieval.dense import Dense, Vectors, write_vectors
from src.extras.retrieval.index_files import MANIFEST, Kind, Part, Settings, read_manifest
from src.extras.retrieval.lexical import Lexical
from src.extras.retrieval.passages import Document, Span

DOCUMENTS, PASSAGES, VECTORS = "documents.arrow", "passages.arrow", "vectors.faiss"  # files of a segment
DOCUMENT_SCHEMA = pa.schema({"source": pa.string(), "digest": pa.string(), "text": pa.large_string()})
PASSAGE_SCHEMA = pa.schema(
    {"document": pa.int32(), "start": pa.int64(), "end": pa.int64(), "words": pa.large_list(pa.string())}
)

Found = list[tuple[int, float]]  # passages by number, with their scores, the best first


class Passage(NamedTuple):
    """A piece of a document: ``text`` is that of the document from character ``start`` to ``end``."""

    source: str
    start: int
    end: int
    text: str


# ---- segments


def digest(text: str) -> str:
    """Hash a text, to know it again."""
    return sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Content:
    """Documents and their passages, as a segment of an index is written from them.

    Args:
        documents: columns ``source``, ``digest`` and ``text``.
        passages: columns ``document`` (its row), ``start``, ``end`` and ``words``.
        vectors: (passages, dimension); None where there is no encoder.
    """

    documents: pa.Table
    passages: pa.Table
    vectors: Vectors | None

    @classmethod
    def of(
        cls, documents: list[Document], spans: list[list[Span]], words: list[list[str]], vectors: Vectors | None
    ) -> "Content":
        """Make the tables of documents and the spans of their passages; words and vectors of all passages in order."""
        sources, texts = [document.source for document in documents], [document.text for document in documents]
        flat = [(i, start, end) for i, of_one in enumerate(spans) for start, end in of_one]
        columns = {name: [row[i] for row in flat] for i, name in enumerate(("document", "start", "end"))}
        digests = [digest(text) for text in texts]
        table = pa.table({"source": sources, "digest": digests, "text": texts}, DOCUMENT_SCHEMA)
        return cls(table, pa.table({**columns, "words": words}, PASSAGE_SCHEMA), vectors)

    @property
    def n_alive(self) -> int:
        """Count the passages, none of which is deleted."""
        return self.passages.num_rows

    def words(self) -> list[list[str]]:
        """Give the words of each passage."""
        return self.passages["words"].to_pylist()

    def content(self) -> "Content":
        """Return itself, as a segment returns what is not deleted in it."""
        return self

    def merged(self, other: "Content") -> "Content":
        """Put the documents of another behind these."""
        rows = pa.array(other.passages["document"].to_numpy() + self.documents.num_rows, pa.int32())
        passages = other.passages.set_column(0, "document", rows)
        vectors = None
        if self.vectors is not None and other.vectors is not None:
            vectors = np.concatenate([self.vectors, other.vectors])
        documents = pa.concat_tables([self.documents, other.documents])
        return Content(documents, pa.concat_tables([self.passages, passages]), vectors)


def write_segment(content: Content, kind: Kind, folder: Path) -> None:
    """Write a segment into a folder that is there."""
    for name, table in ((DOCUMENTS, content.documents), (PASSAGES, content.passages)):
        with pa.ipc.new_file(folder / name, table.schema) as writer:
            writer.write_table(table)
    if content.vectors is not None:
        write_vectors(content.vectors, kind, folder / VECTORS)


class Segment:
    """A part of an index that is written once, memory-mapped: documents, and their passages with words and vectors.

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
        """Count the passages that are not deleted."""
        return int(self.alive().sum())

    def alive(self) -> NDArray[np.bool_]:
        """Mark the passages that are not deleted, (passages,)."""
        return ~np.isin(self.document_of, self.deleted)

    def documents(self) -> dict[str, int]:
        """Map the documents that are not deleted, by source, to their rows."""
        gone = set(self.deleted)
        return {source: i for i, source in enumerate(self.sources) if i not in gone}

    def span(self, row: int) -> tuple[str, int, int]:
        """Give source, start and end of a passage."""
        start, end = (self._passages[name][row].as_py() for name in ("start", "end"))
        return self.sources[self.document_of[row]], start, end

    def passage(self, row: int) -> Passage:
        """Read a passage."""
        source, start, end = self.span(row)
        text: str = self._documents["text"][int(self.document_of[row])].as_py()
        return Passage(source, start, end, text[start:end])

    def words(self) -> list[list[str]]:
        """Give the words of each passage that is not deleted."""
        return self._passages["words"].filter(pa.array(self.alive())).to_pylist()

    def content(self) -> Content:
        """Read all that is not deleted."""
        kept = ~np.isin(np.arange(len(self.sources)), self.deleted)
        alive, renumbered = self.alive(), np.cumsum(kept) - 1
        passages = self._passages.filter(pa.array(alive))
        rows = pa.array(renumbered[self.document_of[alive]], pa.int32())
        vectors = self.dense.vectors()[alive] if self.dense else None
        return Content(self._documents.filter(pa.array(kept)), passages.set_column(0, "document", rows), vectors)


def _read(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


# ---- the index


class Index:
    """An index as it was when it was opened; later changes do not touch what it has open.

    Args:
        folder: of the index.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        while True:
            self.manifest = read_manifest(folder)
            try:
                self._open()
                return
            except InputError:
                if read_manifest(folder) == self.manifest:  # else it was changed while it was being opened
                    raise

    def _open(self) -> None:
        manifest, since = self.manifest, (self.folder / MANIFEST).stat().st_mtime_ns
        for part in manifest.parts:
            if name := damaged(self.folder / part.name, part.files, since):
                raise InputError(f"the index {self.folder} is damaged ({part.name}/{name}): make it anew")
        try:
            self.segments = [Segment(self.folder / part.name, part) for part in manifest.segments]
            lexical = manifest.lexical
            self._lexical = Lexical(self.folder / lexical.name, self.settings.stemmer) if lexical else None
        except OSError as error:
            raise InputError(f"the index {self.folder} cannot be read: {error}") from error
        self._offsets = np.cumsum([0, *map(len, self.segments)])
        alive = [segment.alive() for segment in self.segments]
        self._alive = np.concatenate(alive) if alive else np.zeros(0, bool)
        # of all passages, in the order in which BM25 knows them
        self.numbers: NDArray[np.int64] = np.flatnonzero(self._alive)

    @property
    def settings(self) -> Settings:
        """How it is made."""
        return self.manifest.settings

    def __len__(self) -> int:
        return len(self.numbers)

    def documents(self) -> list[str]:
        """List the sources of all documents."""
        return [source for segment in self.segments for source in segment.documents()]

    def check_encoder(self, encoder: Encoder, path: str) -> None:
        """Refuse an encoder that is not the one whose vectors are in the index."""
        held = self.settings
        if held.dimension is None:
            raise InputError(f"the index {self.folder} has no vectors: make it with --encoder, or search by bm25")
        if encoder.dimension != held.dimension:
            raise InputError(
                f"the encoder {path} makes vectors of {encoder.dimension}, the index {self.folder} holds vectors of "
                f"{held.dimension}, by {held.encoder}: name that one"
            )
        if encoder.checksum() != held.checksum:
            raise InputError(
                f"the encoder {path} (checksum {encoder.checksum()}) is not the one that made the vectors of the index "
                f"{self.folder} ({held.encoder}, checksum {held.checksum}): name that one, or make the index anew"
            )

    def bm25(self, query: str, k: int) -> Found:
        """Find up to ``k`` passages that share a word with the query."""
        if self._lexical is None:
            return []
        rows, scores = self._lexical.search(query, k)
        return list(zip(self.numbers[rows].tolist(), scores.tolist(), strict=True))

    def dense(self, vector: Vectors, k: int) -> Found:
        """Find the ``k`` passages whose vectors are nearest, by their cosines."""
        found: Found = []
        for segment, offset in zip(self.segments, self._offsets, strict=False):
            assert segment.dense is not None
            alive = self._alive[offset : offset + len(segment)]
            rows, cosines = segment.dense.search(vector, k, alive)
            found += zip((rows + offset).tolist(), cosines.tolist(), strict=True)
        return sorted(found, key=lambda one: (-one[1], one[0]))[:k]

    def passage(self, number: int) -> Passage:
        """Read a passage by its number."""
        segment, row = self._row(number)
        return segment.passage(row)

    def span(self, number: int) -> tuple[str, int, int]:
        """Give source, start and end of a passage by its number."""
        segment, row = self._row(number)
        return segment.span(row)

    def _row(self, number: int) -> tuple[Segment, int]:
        i = int(np.searchsorted(self._offsets, number, side="right")) - 1
        return self.segments[i], number - int(self._offsets[i])
