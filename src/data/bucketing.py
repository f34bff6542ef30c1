"""Batches of rows of about the same length, so that little computing goes into padding."""

from collections.abc import Callable, Iterator

import numpy as np

from src.data.packing import Key
from src.data.sampling import PADDING, EpochBatchSampler

POOL = 32  # batches whose rows are sorted together


class BucketBatchSampler(EpochBatchSampler):
    """Shuffled batches of equal size, sorted by length within each pool of :data:`POOL` batches.

    The batches of a pool come in random order. Lengths are asked for a pool at a time, so that an epoch of any size
    starts at once, and a resumed one sorts a single pool to find its place.

    Args:
        n_items: rows in the data set.
        batch_size: rows a batch and rank.
        length: of the row at a key.
        seed: of the order.
        rank: of this process among the data-parallel ones.
        world_size: how many of those there are.
    """

    def __init__(
        self,
        n_items: int,
        batch_size: int,
        length: Callable[[Key], int],
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(n_items, batch_size, seed=seed, shuffle=True, rank=rank, world_size=world_size)
        self.length = length

    def batches(self, epoch: int) -> list[np.ndarray]:
        rows = self.global_batches(epoch)
        return [batch for start in range(0, len(self), POOL) for batch in self._pool(rows, epoch, start)]

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, position = self.data_epoch, self.position
        rows = self.global_batches(epoch)
        for start in range(position // POOL * POOL, len(self), POOL):
            for batch in self._pool(rows, epoch, start)[max(0, position - start) :]:
                yield [(epoch, int(index)) for index in batch]

    def _pool(self, rows: np.ndarray, epoch: int, start: int) -> np.ndarray:
        """The batches of this rank in the pool that begins with batch ``start``: (batches, batch_size)."""
        flat = rows[start : start + POOL].reshape(-1)
        lengths = [0 if index == PADDING else self.length((epoch, int(index))) for index in flat]
        in_order = flat[np.argsort(lengths, kind="stable")].reshape(-1, self.batch_size, self.world_size)
        order = np.random.default_rng([self.seed, epoch, start]).permutation(len(in_order))
        return in_order[order, :, self.rank]
