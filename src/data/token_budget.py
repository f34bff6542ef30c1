"""Batches of as many rows as fit into a number of tokens, from rows of about the same length."""

import numpy as np
from numpy.typing import NDArray

from src.data.sampling import PADDING, ResumableBatchSampler


class TokenBatchSampler(ResumableBatchSampler):
    """Batches of pairs in which neither side, padded to its longest row, has more than ``max_tokens`` tokens.

    The rows are sorted by the length of the longer side, and within that by how much longer the source is, up and down
    in turn, so that both sides of a batch's rows are of about the same length; rows of equal lengths are in another
    order each epoch. The batches are then shuffled. So the shapes of an epoch's batches, and their number, are always
    the same ones.

    The batches that the ranks work on at the same time are neighbours in length. Where there are not enough of them
    for all ranks, the last ones get a row of padding.

    Args:
        lengths: (rows, 2), the tokens of each source and target.
        max_tokens: of a batch, on each side and rank; a row that is longer is a batch by itself.
        seed: of the order.
        shuffle: whether the order is another one each epoch; else it is that of the lengths.
        rank: of this process among the data-parallel ones.
        world_size: how many of those there are.
    """

    def __init__(
        self,
        lengths: NDArray[np.integer],
        max_tokens: int,
        *,
        seed: int = 0,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(seed, rank, world_size)
        self.shuffle = shuffle
        source, target = lengths.astype(np.int64).T
        longer = np.maximum(source, target)
        self._keys = (np.where(longer % 2, source - target, target - source), longer)
        self._cuts = _cut(np.sort(longer), max_tokens)

    def batches(self, epoch: int) -> list[np.ndarray]:
        rng = np.random.default_rng([self.seed, epoch])
        rows = np.arange(len(self._keys[0]))
        if self.shuffle:
            rows = rng.permutation(rows)
        rows = rows[np.lexsort([key[rows] for key in self._keys])]
        batches = np.split(rows, self._cuts) if len(rows) else []
        steps = np.arange(len(self)) * self.world_size + self.rank
        if self.shuffle:
            steps = rng.permutation(steps)
        padding = np.array([PADDING])
        return [batches[step] if step < len(batches) else padding for step in steps]

    def __len__(self) -> int:
        batches = len(self._cuts) + 1 if len(self._keys[0]) else 0
        return -(-batches // self.world_size)


def _cut(ascending: NDArray[np.int64], max_tokens: int) -> list[int]:
    """Where each batch but the first begins, in rows sorted by length."""
    cuts, start = [], 0
    for row, longest in enumerate(ascending.tolist()):
        if row > start and (row + 1 - start) * longest > max_tokens:
            cuts.append(row)
            start = row
    return cuts
