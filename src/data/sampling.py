"""Which rows go into which batch: a function of seed, epoch, position and rank, and of nothing else."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from src.data.packing import Key

PADDING = -1  # the index of a row without targets, where the rows do not divide evenly


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

    @abstractmethod
    def batches(self, epoch: int) -> list[np.ndarray]:
        """The indices of each batch of this rank in an epoch, padded with -1."""

    @property
    def data_epoch(self) -> int:
        """The epoch whose rows, order and masks this one has."""
        return 0 if self.overfit else self.epoch

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = self.data_epoch
        for batch in self.batches(epoch)[self.position :]:
            yield [(epoch, int(index)) for index in batch]

    def __len__(self) -> int:
        """Batches of the whole epoch, wherever it starts."""
        return len(self.batches(self.data_epoch))


class EpochBatchSampler(ResumableBatchSampler):
    """Batches of equal size.

    The rows of a global batch do not depend on the number of ranks: 2 ranks with batches of B see together what one
    rank sees with a batch of 2B.

    Args:
        n_items: rows in the data set.
        batch_size: rows a batch and rank.
        seed: of the order.
        shuffle: whether each epoch has another order; else it is that of the data.
        rank: of this process among the data-parallel ones.
        world_size: how many of those there are.
    """

    def __init__(
        self, n_items: int, batch_size: int, *, seed: int = 0, shuffle: bool, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(seed, rank, world_size)
        self.n_items, self.batch_size, self.shuffle = n_items, batch_size, shuffle

    def global_batches(self, epoch: int) -> np.ndarray:
        """The indices of an epoch over all ranks, padded with -1: (batches, world_size, batch_size)."""
        order = np.full(len(self) * self.batch_size * self.world_size, PADDING)
        if self.shuffle:
            order[: self.n_items] = np.random.default_rng([self.seed, epoch]).permutation(self.n_items)
        else:
            order[: self.n_items] = np.arange(self.n_items)
        return order.reshape(len(self), self.world_size, self.batch_size)

    def batches(self, epoch: int) -> list[np.ndarray]:
        return list(self.global_batches(epoch)[:, self.rank])

    def __len__(self) -> int:
        return -(-self.n_items // (self.batch_size * self.world_size))
