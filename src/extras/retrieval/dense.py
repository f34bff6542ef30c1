"""Nearest vectors, by `faiss`: exactly, by a graph, or by cells."""

from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from src.extras.retrieval.index_files import Kind

Vectors = NDArray[np.float32]
faiss: Any = _faiss  # its types are those of C++

# HNSW (Malkov and Yashunin 2016): neighbours of a vector, and how widely is looked for them, in building and searching
NEIGHBOURS, BUILD_WIDTH, SEARCH_WIDTH = 32, 200, 256
# IVF (Jégou et al. 2011): vectors that a cell needs for its centre, and the fraction of the cells that is searched
PER_CELL, SEARCHED_CELLS = 39, 0.2


def write_vectors(vectors: Vectors, kind: Kind, path: Path) -> None:
    """Write vectors of length 1, searched by their product: exactly (``flat``), or approximately."""
    dimension, metric = vectors.shape[1], faiss.METRIC_INNER_PRODUCT
    if kind == "hnsw":
        index: Any = faiss.IndexHNSWFlat(dimension, NEIGHBOURS, metric)
        index.hnsw.efConstruction = BUILD_WIDTH
    elif kind == "ivf":
        cells = max(1, min(int(4 * len(vectors) ** 0.5), len(vectors) // PER_CELL))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, cells, metric)
        index.train(vectors)
    else:
        index = faiss.IndexFlatIP(dimension)
    index.add(vectors)
    faiss.write_index(index, str(path))


class Dense:
    """Search among the vectors of a file, memory-mapped."""

    def __init__(self, path: Path) -> None:
        self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)

    def vectors(self) -> Vectors:
        """Read all vectors, in the order in which they were written."""
        if isinstance(self._index, faiss.IndexIVF):
            self._index.make_direct_map()
        return self._index.reconstruct_n(0, self._index.ntotal)

    def search(self, query: Vectors, k: int, alive: NDArray[np.bool_]) -> tuple[NDArray[np.int64], Vectors]:
        """Find the rows and cosines of the ``k`` nearest vectors that are alive, or of all of those if there are fewer.

        Args:
            query: (dimension,), of length 1.
            k: how many.
            alive: (vectors,), false at those that were deleted.
        """
        k = min(k, int(alive.sum()))
        if k == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        selector = None if alive.all() else faiss.IDSelectorBitmap(np.packbits(alive, bitorder="little"))
        cosines, rows = self._index.search(query[None], k, params=self._parameters(k, selector))
        found = rows[0] >= 0
        return rows[0][found], cosines[0][found]

    def _parameters(self, k: int, selector: Any) -> Any:
        given = {} if selector is None else {"sel": selector}
        if isinstance(self._index, faiss.IndexHNSW):
            return faiss.SearchParametersHNSW(efSearch=max(SEARCH_WIDTH, 2 * k), **given)
        if isinstance(self._index, faiss.IndexIVF):
            cells = self._index.nlist
            # a small cell may not hold k vectors: enough cells for four times as many
            needed = -(-4 * k * cells // self._index.ntotal)
            return faiss.SearchParametersIVF(nprobe=min(cells, max(needed, 8, int(SEARCHED_CELLS * cells))), **given)
        return faiss.SearchParameters(**given) if given else None
