"""Decoding with the weights of a run, timed."""

from collections.abc import Callable
from itertools import islice

import lightning as L
import torch

from src.decoding import beam_search, generate, greedy_search
from src.errors import InputError
from src.extras.bench.benchmark import Decoded
from src.extras.bench.peers import Batch, DecodingPeer, External, Search
from src.extras.bench.profiler import clock
from src.tasks import GPTModule, Task, TransformerModule
from src.tokenization import require_token

Work = list[tuple[Batch, Search]]


class DecodingBench(L.Callback):
    """Decode the first batches of the validation split in rounds, in turns with another program if there is one.

    Args:
        batches: in a round.
        rounds: after one batch on each side that does not count.
        make_peer: makes the other program, once the run is set up; None where there is none.
    """

    def __init__(
        self, batches: int, rounds: int, make_peer: Callable[[Task], DecodingPeer | External] | None = None
    ) -> None:
        self.batches, self.n_rounds, self.make_peer = batches, rounds, make_peer
        self.own: list[float] = []
        self.theirs: list[float] = []
        self.peer: DecodingPeer | External | None = None
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
        peer, ids_there = self.peer, None

        def here(batch: Batch, search: Search) -> list[list[int]]:
            return decode(task, batch, search)

        here(*self.work[0])
        if peer is not None and not isinstance(peer, External):
            peer.decode(*self.work[0])
        for _ in range(self.n_rounds):
            rate, ids = timed(here, self.work, device)
            self.own.append(rate)
            if isinstance(peer, External):
                self.theirs.append(peer.rate())
            elif peer is not None:
                rate, ids_there = timed(peer.decode, self.work, device)
                self.theirs.append(rate)
        equal = -1 if ids_there is None else sum(a == b for a, b in zip(ids, ids_there, strict=True))
        self.decoded = Decoded(len(ids), equal)


def timed(
    decoder: Callable[[Batch, Search], list[list[int]]], work: Work, device: torch.device
) -> tuple[float, list[list[int]]]:
    """Decode all of it; return sentences a second, and the token ids of each."""
    start = clock(device)
    ids = [row for batch, search in work for row in decoder(batch, search)]
    return len(ids) / (clock(device) - start), ids


def prompt(task: Task, batch: Batch) -> tuple[Batch, Search]:
    """Choose what is decoded of an evaluation batch, and how.

    A source with the task's beam, to at most 50 tokens more than the longest source has; or a quarter of the context,
    continued greedily until it is full.
    """
    if isinstance(task, TransformerModule):
        max_len = min(batch["input_ids"].shape[1] + 50, task.config.max_seq_len - 1)
        given = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return given, Search(task.beam, task.length_penalty, max_len, task.data.end_id)
    if isinstance(task, GPTModule):
        context = task.config.max_seq_len
        ids = batch["input_ids"][:, : max(1, context // 4)]
        end_id = require_token(task.data.tokenizer, task.data.special_tokens["eos_token"], "end_token")
        given = {"input_ids": ids, "attention_mask": ids.new_ones(ids.shape)}
        return given, Search(1, 0.0, context - ids.shape[1], end_id)
    raise InputError(f"--decode is for networks that write text, which {type(task).__name__} trains none of")


def decode(task: Task, given: Batch, search: Search) -> list[list[int]]:
    """Return token ids without start, prompt and end token, by this project's own search."""
    if isinstance(task, GPTModule):
        prompts = given["input_ids"].tolist()
        return generate(task.model, prompts, max_new_tokens=search.max_len, temperature=0.0, eos_id=search.end_id)
    assert isinstance(task, TransformerModule)
    start_id, end_id = task.data.start_id, task.data.end_id
    sources = (task.model, given["input_ids"], given["attention_mask"])
    if search.beam == 1:
        return greedy_search(*sources, start_id=start_id, end_id=end_id, max_len=search.max_len)
    found = beam_search(
        *sources,
        start_id=start_id,
        end_id=end_id,
        beam=search.beam,
        length_penalty=lambda length: length**search.alpha,
        max_len=search.max_len,
    )
    return [hypotheses[0].ids for hypotheses in found]
