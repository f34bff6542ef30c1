"""Which rows go into which batch: a function of seed, epoch, position and rank, and of nothing else."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from src.data.store import Key

PADDING = -1  # the index of a row without targets, where the rows do not divide evenly
POOL = 32  # batches whose rows are sorted together


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
            self.position, self.first = 0, len(self.batches(self.data_epoch)) - len(self)

    @property
    @abstractmethod
    def division(self) -> list[int]:
        """The numbers on which it depends which rows are in the same step."""

    @abstractmethod
    def batches(self, epoch: int) -> list[np.ndarray]:
        """Give the indices of each batch of this rank in an epoch, or in what is left of it, padded with -1."""

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

    @property
    def division(self) -> list[int]:
        return [self.batch_size * self.world_size]

    def order(self, epoch: int) -> np.ndarray:
        """Give the indices of an epoch in order, less those that were taken under other divisions."""
        rows = np.arange(self.n_items)
        if self.shuffle:
            rows = np.random.default_rng([self.seed, epoch]).permutation(self.n_items)
        for (size,), steps in self.taken:
            rows = self._rest(rows, epoch, size, steps)
        return rows

    def _rest(self, rows: np.ndarray, epoch: int, size: int, steps: int) -> np.ndarray:
        """Take out of rows those of the first global batches of a size."""
        return rows[size * steps :]

    def global_batches(self, epoch: int) -> np.ndarray:
        """Give the indices of an epoch over all ranks, padded with -1: (batches, world_size * batch_size)."""
        return _padded(self.order(epoch), *self.division)

    def batches(self, epoch: int) -> list[np.ndarray]:
        start = self.rank * self.batch_size
        return list(self.global_batches(epoch)[:, start : start + self.batch_size])

    def __len__(self) -> int:
        return -(-self.n_items // (self.batch_size * self.world_size))


def _padded(rows: np.ndarray, size: int) -> np.ndarray:
    """Cut rows into global batches, the last one filled up with -1: (batches, size)."""
    return np.concatenate([rows, np.full(-len(rows) % size, PADDING)]).reshape(-1, size)


class BucketBatchSampler(EpochBatchSampler):
    """Shuffled batches of equal size, sorted by length within each pool of :data:`POOL` batches.

    The batches of a pool come in random order. Lengths are asked for a pool at a time, so that an epoch of any size
    starts at once, and a resumed one sorts a single pool to find its place.

    Args:
        n_items: rows in the data set.
        batch_size: rows a batch and rank.
        length: of the row at a key.
        kwargs: seed, rank and world_size, as of :class:`ResumableBatchSampler`.
    """

    def __init__(self, n_items: int, batch_size: int, length: Callable[[Key], int], **kwargs: int) -> None:
        super().__init__(n_items, batch_size, shuffle=True, **kwargs)
        self.length = length

    def batches(self, epoch: int) -> list[np.ndarray]:
        rows = self.global_batches(epoch)
        return [batch for start in range(0, len(rows), POOL) for batch in self._of_rank(rows, epoch, start)]

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, position = self.data_epoch, self.position
        rows = self.global_batches(epoch)
        for start in range(position // POOL * POOL, len(rows), POOL):
            for batch in self._of_rank(rows, epoch, start)[max(0, position - start) :]:
                yield [(epoch, int(index)) for index in batch]

    def _of_rank(self, rows: np.ndarray, epoch: int, start: int) -> np.ndarray:
        """Give the batches of this rank in the pool that begins with batch ``start``: (batches, batch_size)."""
        return self._pool(rows, epoch, start)[:, self.rank :: self.world_size]

    def _pool(self, rows: np.ndarray, epoch: int, start: int) -> np.ndarray:
        """Sort the pool that begins with global batch ``start``: (batches, world_size * batch_size)."""
        pool = rows[start : start + POOL]
        flat = pool.reshape(-1)
        lengths = [0 if index == PADDING else self.length((epoch, int(index))) for index in flat]
        in_order = flat[np.argsort(lengths, kind="stable")].reshape(pool.shape)
        return in_order[np.random.default_rng([self.seed, epoch, start]).permutation(len(pool))]

    def _rest(self, rows: np.ndarray, epoch: int, size: int, steps: int) -> np.ndarray:
        start = steps // POOL * POOL
        taken = self._pool(_padded(rows, size), epoch, start)[: steps - start] if steps > start else rows[:0]
        rows = rows[start * size :]
        return rows[~np.isin(rows, taken)]


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
