"""Which rows go into which batch: a function of seed, epoch, position and rank, and of nothing else."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from src.data.seekable import SMALL, permute
from src.data.store import Key

PADDING = -1  # the index of a row without targets, where the rows do not divide evenly
POOL = 32  # batches that are made at once, and whose rows are sorted together


class ResumableBatchSampler(Sampler[list[Key]], ABC):
    """Batches of an epoch from a position on; seeking is one assignment.

    Every rank has the same number of batches, and over all ranks each row stands in exactly one of them.

    Args:
        seed: of the order.
        rank: of this process among the data-parallel ones.
        world_size: how many of those there are.
    """

    def __init__(self, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = 0
        self.position = 0  # the batch to start with
        self.first = 0  # the position of the epoch's first batch
        self.overfit = False  # whether every epoch has the batches of the first one

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch at its first batch; nothing if it is the current one, which may have been resumed midway."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """The epoch, where it began, and the position."""
        return {"epoch": self.epoch, "first": self.first, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on at a position."""
        self.epoch, self.position, self.first = state["epoch"], state["position"], state.get("first", 0)

    @abstractmethod
    def batches(self, epoch: int) -> list[np.ndarray]:
        """Give the indices of each batch of this rank in an epoch, padded with -1."""

    def batch(self, epoch: int, number: int) -> np.ndarray:
        """Give the indices of one batch of this rank in an epoch."""
        return self.batches(epoch)[number]

    @property
    def data_epoch(self) -> int:
        """The epoch whose rows, order and masks this one has."""
        return 0 if self.overfit else self.epoch

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = self.data_epoch
        for batch in self.batches(epoch)[self.position :]:
            yield [(epoch, int(index)) for index in batch]

    def __len__(self) -> int:
        """Count the batches of the whole epoch, wherever it starts."""
        return len(self.batches(self.data_epoch))


class EpochBatchSampler(ResumableBatchSampler):
    """Batches of equal size.

    The rows of a global batch do not depend on the number of ranks: 2 ranks with batches of B see together what one
    rank sees with a batch of 2B.

    Args:
        n_items: rows in the data set.
        batch_size: rows a batch and rank.
        shuffle: whether each epoch has another order; else it is that of the data.
        kwargs: seed, rank and world_size, as of :class:`ResumableBatchSampler`.
    """

    def __init__(self, n_items: int, batch_size: int, *, shuffle: bool, **kwargs: int) -> None:
        super().__init__(**kwargs)
        self.n_items, self.batch_size, self.shuffle = n_items, batch_size, shuffle
        self._order: tuple[int, np.ndarray] = -1, np.zeros(0, np.int64)  # the latest epoch's

    def pool(self, epoch: int, start: int) -> np.ndarray:
        """Give the batches of this rank from ``start``, a multiple of :data:`POOL`, to the next: (batches, batch_size).

        Padded with -1.
        """
        return self._global_batches(epoch, start)[:, self.rank]

    def _global_batches(self, epoch: int, start: int) -> np.ndarray:
        """Give the rows of a pool of batches over all ranks, padded with -1: (batches, world_size, batch_size)."""
        size = self.batch_size * self.world_size
        stop = min(start + POOL, len(self))
        positions = np.arange(start * size, min(stop * size, self.n_items))
        rows = np.full((stop - start) * size, PADDING)
        rows[: len(positions)] = self._shuffled(epoch, positions) if self.shuffle else positions
        return rows.reshape(-1, self.world_size, self.batch_size)

    def _shuffled(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        if self.n_items > SMALL:  # in each rank a permutation of all rows would be gigabytes
            return permute(positions, self.n_items, self.seed, epoch)
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.n_items)
        return self._order[1][positions]

    def batches(self, epoch: int) -> list[np.ndarray]:
        return [batch for start in range(0, len(self), POOL) for batch in self.pool(epoch, start)]

    def batch(self, epoch: int, number: int) -> np.ndarray:
        return self.pool(epoch, number // POOL * POOL)[number % POOL]

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, position = self.data_epoch, self.position
        for start in range(position // POOL * POOL, len(self), POOL):
            for batch in self.pool(epoch, start)[max(0, position - start) :]:
                yield [(epoch, int(index)) for index in batch]

    def __len__(self) -> int:
        return -(-self.n_items // (self.batch_size * self.world_size))


class BucketBatchSampler(EpochBatchSampler):
    """Shuffled batches of equal size, sorted by length within each pool of :data:`POOL` batches of all ranks.

    The batches of a pool come in random order. Lengths are asked for a pool at a time, so that an epoch of any size
    starts at once, and a resumed one sorts a single pool to find its place.

    Args:
        n_items: rows in the data set.
        batch_size: rows a batch and rank.
        lengths: of rows, given the epoch and their indices.
        kwargs: seed, rank and world_size, as of :class:`ResumableBatchSampler`.
    """

    def __init__(
        self, n_items: int, batch_size: int, lengths: Callable[[int, np.ndarray], np.ndarray], **kwargs: int
    ) -> None:
        super().__init__(n_items, batch_size, shuffle=True, **kwargs)
        self.lengths = lengths

    def pool(self, epoch: int, start: int) -> np.ndarray:
        flat = self._global_batches(epoch, start).reshape(-1)
        lengths = np.where(flat == PADDING, 0, self.lengths(epoch, np.maximum(flat, 0)))
        in_order = flat[np.argsort(lengths, kind="stable")].reshape(-1, self.batch_size, self.world_size)
        order = np.random.default_rng([self.seed, epoch, start]).permutation(len(in_order))
        return in_order[order, :, self.rank]


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
        shuffle: whether the order is another one each epoch; else it is that of the lengths.
        kwargs: seed, rank and world_size, as of :class:`ResumableBatchSampler`.
    """

    def __init__(self, lengths: NDArray[np.integer], max_tokens: int, *, shuffle: bool, **kwargs: int) -> None:
        super().__init__(**kwargs)
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
    """Find where each batch but the first begins, in rows sorted by length."""
    cuts, start = [], 0
    for row, longest in enumerate(ascending.tolist()):
        if row > start and (row + 1 - start) * longest > max_tokens:
            cuts.append(row)
            start = row
    return cuts
