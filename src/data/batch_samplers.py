"""Which rows go into which batch: a function of seed, epoch, position and rank, and of nothing else."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from src.data.seekable import SMALL, permute
from src.data.store import Key

PADDING = -1  # the index of a row without targets, where the rows do not divide evenly
POOL = 32  # batches that are made at once, and whose rows are sorted together


class ResumableBatchSampler(Sampler[list[Key]], ABC):
    """Batches of an epoch from a position on; seeking is one assignment.

    Every rank has the same number of batches, and over all ranks each row stands in exactly one of them. A run that
    goes on with other ranks or larger batches divides the rows anew that the epoch has not had yet.

    Args:
        seed: of the order.
        rank: of this process among the data-parallel ones.
        world_size: how many of those there are.
    """

    def __init__(self, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = 0
        self.position = 0  # the batch to start with
        # the position of the epoch's first batch; negative where batches before position 0 were divided otherwise
        self.first = 0
        self.taken: list[tuple[list[int], int]] = []  # divisions of the epoch before this one, and the steps of each
        self.overfit = False  # whether every epoch has the batches of the first one

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch at its first batch; nothing if it is the current one, which may have been resumed midway."""
        if epoch != self.epoch:
            self.epoch, self.position, self.first, self.taken = epoch, 0, 0, []

    def state_dict(self) -> dict[str, Any]:
        """The position in the epoch, with all that decides which rows were before it."""
        position = {"epoch": self.epoch, "first": self.first, "position": self.position}
        return {**position, "division": self.division, "taken": self.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the rows behind a position, also where they are divided otherwise than those before it."""
        self.epoch, self.position = state["epoch"], state["position"]
        self.first, self.taken = state.get("first", 0), list(state.get("taken", []))
        division = state.get("division", self.division)  # which older checkpoints do not say
        if division != self.division:
            self.taken.append((division, self.position))
            # counted from the end, so that an epoch has the same number of batches wherever it was divided anew
            self.position, self.first = 0, self.n_left(self.data_epoch) - len(self)

    @property
    @abstractmethod
    def division(self) -> list[int]:
        """The numbers on which it depends which rows are in the same step."""

    @abstractmethod
    def batches(self, epoch: int) -> list[np.ndarray]:
        """Give the indices of each batch of this rank in an epoch, or in what is left of it, padded with -1."""

    def batch(self, epoch: int, number: int) -> np.ndarray:
        """Give the indices of one of them."""
        return self.batches(epoch)[number]

    def n_left(self, epoch: int) -> int:
        """Count them."""
        return len(self.batches(epoch))

    @property
    def data_epoch(self) -> int:
        """The epoch whose rows, order and masks this one has."""
        return 0 if self.overfit else self.epoch

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = self.data_epoch
        for batch in self.batches(epoch)[self.position :]:
            yield [(epoch, int(index)) for index in batch]

    @abstractmethod
    def __len__(self) -> int:
        """Count the batches of the whole epoch, wherever it starts."""


class _Left(NamedTuple):
    """What is left of an epoch: some rows, and then those of its order from a position on."""

    rows: np.ndarray
    position: int


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

    @property
    def division(self) -> list[int]:
        return [self.batch_size * self.world_size]

    def batches(self, epoch: int) -> list[np.ndarray]:
        return [batch for start in range(0, self.n_left(epoch), POOL) for batch in self._pool_of_rank(epoch, start)]

    def batch(self, epoch: int, number: int) -> np.ndarray:
        return self._pool_of_rank(epoch, number // POOL * POOL)[number % POOL]

    def n_left(self, epoch: int) -> int:
        rows, position = self._left(epoch)
        return -(-(len(rows) + self.n_items - position) // self.division[0])

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, position = self.data_epoch, self.position
        for start in range(position // POOL * POOL, self.n_left(epoch), POOL):
            for batch in self._pool_of_rank(epoch, start)[max(0, position - start) :]:
                yield [(epoch, int(index)) for index in batch]

    def __len__(self) -> int:
        return -(-self.n_items // self.division[0])

    def _pool_of_rank(self, epoch: int, start: int) -> np.ndarray:
        """Give the batches of this rank from ``start``, a multiple of :data:`POOL`, to the next: (batches, batch_size).

        Padded with -1.
        """
        return self._of_rank(self._pool(self._left(epoch), epoch, start, *self.division))

    def _of_rank(self, pool: np.ndarray) -> np.ndarray:
        """Choose this rank's rows: (batches, world_size * batch_size) to (batches, batch_size)."""
        return pool[:, self.rank * self.batch_size : (self.rank + 1) * self.batch_size]

    def _pool(self, left: _Left, epoch: int, start: int, size: int) -> np.ndarray:
        """Give the pool that begins with a global batch of ``size`` rows, padded with -1: (batches, size)."""
        rows = self._rows(left, epoch, start * size, (start + POOL) * size)
        return np.concatenate([rows, np.full(-len(rows) % size, PADDING)]).reshape(-1, size)

    def _rows(self, left: _Left, epoch: int, start: int, stop: int) -> np.ndarray:
        """Give the rows from one position to another in what is left of an epoch."""
        n = len(left.rows)
        positions = left.position + np.arange(max(start - n, 0), max(stop - n, 0))
        positions = positions[positions < self.n_items]
        return np.concatenate([left.rows[start:stop], self._shuffled(epoch, positions) if self.shuffle else positions])

    def _shuffled(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        if self.n_items > SMALL:  # in each rank a permutation of all rows would be gigabytes
            return permute(positions, self.n_items, self.seed, epoch)
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.n_items)
        return self._order[1][positions]

    def _left(self, epoch: int) -> _Left:
        """Find what an epoch has not had under other divisions."""
        left = _Left(np.zeros(0, np.int64), 0)
        for (size,), steps in self.taken:
            left = self._rest(left, epoch, size, steps)
        return left

    def _rest(self, left: _Left, epoch: int, size: int, steps: int) -> _Left:
        """Leave out the first global batches of a size."""
        n = size * steps
        return _Left(left.rows[n:], min(left.position + max(n - len(left.rows), 0), self.n_items))


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

    def _of_rank(self, pool: np.ndarray) -> np.ndarray:
        return pool[:, self.rank :: self.world_size]

    def _pool(self, left: _Left, epoch: int, start: int, size: int) -> np.ndarray:
        flat = super()._pool(left, epoch, start, size).reshape(-1)
        lengths = np.where(flat == PADDING, 0, self.lengths(epoch, np.maximum(flat, 0)))
        in_order = flat[np.argsort(lengths, kind="stable")].reshape(-1, size)
        return in_order[np.random.default_rng([self.seed, epoch, start]).permutation(len(in_order))]

    def _rest(self, left: _Left, epoch: int, size: int, steps: int) -> _Left:
        start = steps // POOL * POOL  # of the pool that was begun
        rows = self._rows(left, epoch, start * size, (start + POOL) * size)
        rows = rows[~np.isin(rows, self._pool(left, epoch, start, size)[: steps - start])]
        behind = super()._rest(left, epoch, size, start + POOL)
        return _Left(np.concatenate([rows, behind.rows]), behind.position)


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
        self.max_tokens, self.shuffle = max_tokens, shuffle
        source, target = lengths.astype(np.int64).T
        longer = np.maximum(source, target)
        self._keys = (np.where(longer % 2, source - target, target - source), longer)
        self._cuts = _cut(np.sort(longer), max_tokens)  # of all rows

    @property
    def division(self) -> list[int]:
        return [self.world_size, self.max_tokens]

    def batches(self, epoch: int) -> list[np.ndarray]:
        rows = np.arange(len(self._keys[0]))
        for division, steps in self.taken:
            taken = [batch for step in self._steps(rows, epoch, *division)[:steps] for batch in step]
            rows = rows[~np.isin(rows, np.concatenate([rows[:0], *taken]))]
        return [step[self.rank] for step in self._steps(rows, epoch, *self.division)]

    def _steps(self, rows: np.ndarray, epoch: int, world_size: int, max_tokens: int) -> list[list[np.ndarray]]:
        """Divide rows among steps, each of a batch for every rank."""
        is_whole = len(rows) == len(self._keys[0]) and max_tokens == self.max_tokens
        rng = np.random.default_rng([self.seed, epoch])
        if self.shuffle:
            rows = rng.permutation(rows)
        rows = rows[np.lexsort([key[rows] for key in self._keys])]
        cuts = self._cuts if is_whole else _cut(self._keys[1][rows], max_tokens)
        batches = np.split(rows, cuts) if len(rows) else []
        batches += [np.array([PADDING])] * (-len(batches) % world_size)
        steps = [batches[start : start + world_size] for start in range(0, len(batches), world_size)]
        return [steps[i] for i in rng.permutation(np.arange(len(steps)))] if self.shuffle else steps

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
