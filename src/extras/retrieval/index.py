"""An index of passages, opened to be searched."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.atomic import damaged
from src.encoder import Encoder
from src.errors import InputError
from src.extras.retrieval.dense import Vectors
from src.extras.retrieval.index_files import MANIFEST, Settings, read_manifest
from src.extras.retrieval.lexical import Lexical
from src.extras.retrieval.passages import Passage
from src.extras.retrieval.segment import Segment

Found = list[tuple[int, float]]  # passages by number, with their scores, the best first


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
        """The sources of all documents."""
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
        """A passage by its number."""
        segment, row = self._row(number)
        return segment.passage(row)

    def span(self, number: int) -> tuple[str, int, int]:
        """Source, start and end of a passage by its number."""
        segment, row = self._row(number)
        return segment.span(row)

    def _row(self, number: int) -> tuple[Segment, int]:
        i = int(np.searchsorted(self._offsets, number, side="right")) - 1
        return self.segments[i], number - int(self._offsets[i])
