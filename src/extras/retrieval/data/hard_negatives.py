"""Hard negatives: the passages that share the most words with a query and do not answer it, by BM25."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_bm25(passages: Iterable[NDArray[np.integer]], vocab_size: int, folder: Path, split: str) -> None:
    """Write the BM25 scores of a split's passages, by their tokens."""
    from bm25s import BM25

    scorer = BM25()
    vocabulary = {str(i): i for i in range(vocab_size)}
    scorer.index(([passage.tolist() for passage in passages], vocabulary), False, show_progress=False)
    scorer.save(folder, **_names(split))


def _names(split: str) -> dict[str, str]:
    parts = {"data": "npy", "indices": "npy", "indptr": "npy", "vocab": "json", "params": "json"}
    return {f"{part}_name": f"{split}.bm25.{part}.{ending}" for part, ending in parts.items()}


class HardNegatives:
    """Draw passages from the best that BM25 finds for a query.

    Args:
        folder: that :func:`write_bm25` wrote into; it is memory-mapped.
        split: of the data.
        depth: how many of the best are drawn from.
    """

    def __init__(self, folder: Path, split: str, depth: int) -> None:
        from bm25s import BM25

        self.scorer = BM25.load(folder, **_names(split), mmap=True, load_vocab=False)
        self.depth = depth

    def draw(self, query: NDArray[np.integer], exclude: tuple[int, ...], n: int, rng: np.random.Generator) -> list[int]:
        """Numbers of up to ``n`` passages that are not among ``exclude``, in random order."""
        scores = self.scorer.get_scores_from_ids(np.unique(query).tolist())
        depth = min(self.depth + len(exclude), len(scores))
        best = np.argpartition(scores, -depth)[-depth:]
        best = np.setdiff1d(best, exclude)
        best = best[np.argsort(-scores[best], kind="stable")][: self.depth]
        return rng.permutation(best)[:n].tolist()
