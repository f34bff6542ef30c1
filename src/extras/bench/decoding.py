"""Decoding with the weights of a run, timed."""

from collections.abc import Callable
from itertools import islice
from typing import Any, Protocol

import lightning as L
import torch
from torch import Tensor

from src.extras.bench.external import External
from src.extras.bench.profiler import clock
from src.extras.bench.record import Decoded, Measured, Round
from src.extras.bench.search import Search, decode, prompt
from src.tasks import Task

Batch = dict[str, Tensor]
Work = list[tuple[Batch, Search]]


class Decoder(Protocol):
    """Another program that decodes within this process.

    Attributes:
        about: what is known of it, by name, for people.
    """

    about: dict[str, Any]

    def decode(self, batch: Batch, search: Search) -> list[list[int]]:
        """The token ids of each row, without start, prompt and end token."""


class DecodingBench(L.Callback):
    """Decode the first batches of the validation split in rounds, in turns with another program if there is one.

    Args:
        batches: in a round.
        rounds: after one batch on each side that does not count.
        peer: makes the other program, once the run is set up; none if there is none.
    """

    def __init__(self, batches: int, rounds: int, peer: Callable[[Task], Decoder | External] | None) -> None:
        self.batches, self.n_rounds, self.make_peer = batches, rounds, peer
        self.measured: list[Measured] = []
        self.rounds: list[Round] = []
        self.peer: Decoder | External | None = None
        self.decoded: Decoded | None = None
        self.work: Work = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """All is set up here, and nothing trained yet."""
        assert isinstance(pl_module, Task)
        task, device = pl_module, trainer.strategy.root_device
        loader = task.data.val_dataloader()
        found = [{name: t.to(device) for name, t in batch.items()} for batch in islice(loader, self.batches)]
        self.work = [prompt(task, batch) for batch in found]
        training = task.model.training
        task.model.eval()
        self.peer = self.make_peer(task) if self.make_peer is not None else None
        # not inference mode: what one side makes, the other could not use
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            self._rounds(task, device)
        task.model.train(training)

    def _rounds(self, task: Task, device: torch.device) -> None:
        work, peer, theirs, ids_there = self.work, self.peer, 0.0, None

        def here(batch: Batch, search: Search) -> list[list[int]]:
            return decode(task, batch, search)

        here(*work[0])
        if peer is not None and not isinstance(peer, External):
            peer.decode(*work[0])
        for _ in range(self.n_rounds):
            ours, ids = timed(here, work, device)
            self.measured.append(ours)
            if isinstance(peer, External):
                theirs = peer.rate()
            elif peer is not None:
                other, ids_there = timed(peer.decode, work, device)
                theirs = other.sentences_per_second
            if peer is not None:
                self.rounds.append(Round(ours.sentences_per_second, theirs))
        equal = -1 if ids_there is None else sum(a == b for a, b in zip(ids, ids_there, strict=True))
        self.decoded = Decoded(len(ids), equal)


def timed(
    decoder: Callable[[Batch, Search], list[list[int]]], work: Work, device: torch.device
) -> tuple[Measured, list[list[int]]]:
    """Decode all of it, and say how long it took."""
    start = clock(device)
    ids = [row for batch, search in work for row in decoder(batch, search)]
    return Measured(sum(map(len, ids)), clock(device) - start, len(ids)), ids
