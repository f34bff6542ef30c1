"""The training loader: counts the targets of each optimizer step ahead of it, and knows its position."""

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from src.data.batch_samplers import ResumableBatchSampler
from src.data.packing import StreamedBlocks
from src.data.store import IGNORED
from src.errors import InputError

Batch = dict[str, Tensor]
# what a loss is averaged over, by the name of its count in a batch -> the labels that are counted
TARGETS = {"target_tokens": "labels", "target_pairs": "next_sentence_label"}


class TokenCountingLoader:
    """Add to each batch the mean number of targets of the micro-batches of its optimizer step, over all ranks.

    ``target_tokens`` counts the ``labels``; ``target_pairs`` the labels of next sentences, where a batch has them. With
    ``loss = summed_loss / batch["target_tokens"]``, which Lightning divides by the number of accumulated batches and
    the strategy averages over ranks, the gradient is that of the mean over all targets of the step, however many each
    micro-batch has: k batches of B train as one of k·B.

    It has a state, which Lightning saves and restores: a resumed run goes on with the very next batch.

    Args:
        loader: of batches.
        sampler: what the loader takes its batches from: has an epoch and a position, and starts there.
        accumulate_grad_batches: micro-batches of an optimizer step.
        mean_over_ranks: averages a tensor over the ranks; called once an optimizer step, on every rank.
        batches_per_epoch: tells how many batches of an epoch are trained on, which may be fewer than there are; asked
            when the epoch begins.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        sampler: ResumableBatchSampler | StreamedBlocks,
        accumulate_grad_batches: int = 1,
        mean_over_ranks: Callable[[Tensor], Tensor] = lambda count: count,
        batches_per_epoch: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self.loader = loader
        self.sampler = sampler  # by this name Lightning finds it and calls its set_epoch
        self.accumulate = accumulate_grad_batches
        self.mean_over_ranks = mean_over_ranks
        self.batches_per_epoch = batches_per_epoch

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        # a generator, so that nothing is read before Lightning has set the epoch
        batches = map(_accepted, iter(self.loader))
        position = self.sampler.position
        while window := list(islice(batches, self._rest_of_step(self.done))):
            targets = torch.stack([count_targets(batch) for batch in window]).sum(0) / self.accumulate
            means = self.mean_over_ranks(targets.float()).clamp(min=1e-6)  # a step without any target has no gradient
            counts = dict(zip(_counted(window[0]), means.unbind(), strict=True))
            for batch in window:
                position += 1
                self.sampler.position = position
                if isinstance(self.sampler, StreamedBlocks):
                    self.sampler.took(batch)
                yield {**batch, **counts}

    def _rest_of_step(self, batch: int) -> int:
        """How many batches an optimizer step takes from a batch of the epoch on, which a run may be resumed at.

        The last step of an epoch has what is left of it.
        """
        left = max(self.batches_per_epoch() - batch, 0)
        return int(min(self.accumulate - batch % self.accumulate, left))

    @property
    def done(self) -> int:
        """How many batches of the epoch were given out, as this run counts them."""
        return self.sampler.position - self.sampler.first

    def state_dict(self) -> dict[str, Any]:
        """The position after the batches that were given out."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the very next row, also on other ranks and in batches of another size."""
        self.sampler.load_state_dict(state)


def _accepted(batch: Batch) -> Batch:
    """Raise what a worker of the loader could only hand on."""
    if "refused" in batch:
        raise InputError(str(batch["refused"]))
    return batch


def target_counts(batch: Batch) -> dict[str, Tensor]:
    """Take the counts that the loader has added to a batch, 0-dim tensors on its device."""
    return {count: batch[count] for count in _counted(batch)}


def count_targets(batch: Batch) -> Tensor:
    """How many labels of each kind are targets: (kinds of labels in the batch,)."""
    return torch.stack([(batch[TARGETS[count]] != IGNORED).sum() for count in _counted(batch)])


def _counted(batch: Batch) -> list[str]:
    """The counts that a batch is given: those whose labels it has."""
    return [count for count, labels in TARGETS.items() if labels in batch]


def as_it_is(batch: Any) -> Any:
    """Data sets here give whole batches."""
    return batch
