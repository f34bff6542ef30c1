"""Decoding with the weights of a run, timed."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import lightning as L
import torch

from src.architectures import architectures
from src.decoding import beam_search, generate, greedy_search
from src.errors import InputError
from src.extras.bench.benchmark import Decoded, Record
from src.extras.bench.huggingface import HuggingFaceDecoding
from src.extras.bench.peers import Batch, External, Search
from src.extras.bench.profiler import clock
from src.tasks import Task
from src.tokenization import require_token

Work = list[tuple[Batch, Search]]


class DecodingBench(L.Callback):
    """Decode the first batches of the validation split in rounds, in turns with another program if there is one.

    Args:
        record: what is measured goes there.
        batches: in a round.
        rounds: after one batch on each side that does not count.
        make_peer: makes the other program, once the run is set up; None where there is none.
    """

    def __init__(
        self,
        record: Record,
        batches: int,
        rounds: int,
        make_peer: Callable[[Task], HuggingFaceDecoding | External] | None,
    ) -> None:
        self.record, self.batches, self.n_rounds, self.make_peer = record, batches, rounds, make_peer

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """All is set up here, and nothing trained yet."""
        assert isinstance(pl_module, Task)
        task, device = pl_module, trainer.strategy.root_device
        batches = islice(task.data.val_dataloader(), self.batches)
        self.work = [prompt(task, {name: t.to(device) for name, t in batch.items()}) for batch in batches]
        self.first_batch, search = self.work[0]
        self.settings = {
            "weights": task.pretrained or "none but the first random ones: --ckpt_path names a checkpoint",
            "search": f"beam {search.beam}, length penalty {search.alpha:g}, {len(self.work)} batches a round",
        }
        training = task.model.training
        task.model.eval()
        # not inference mode: what one side makes, the other could not use
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            self._rounds(task, device)
        task.model.train(training)

    def _rounds(self, task: Task, device: torch.device) -> None:
        record, ids_there = self.record, None
        peer = self.make_peer(task) if self.make_peer is not None else None

        def here(batch: Batch, search: Search) -> list[list[int]]:
            return decode(task, batch, search)

        here(*self.work[0])
        if peer is not None:
            record.against = peer.about
            if not isinstance(peer, External):
                peer.decode(*self.work[0])
        for _ in range(self.n_rounds):
            rate, ids = timed(here, self.work, device)
            record.own.append(rate)
            if isinstance(peer, External):
                record.theirs.append(peer.rate())
            elif peer is not None:
                rate, ids_there = timed(peer.decode, self.work, device)
                record.theirs.append(rate)
        equal = -1 if ids_there is None else sum(a == b for a, b in zip(ids, ids_there, strict=True))
        record.decoded = Decoded(len(ids), equal)


def timed(
    decoder: Callable[[Batch, Search], list[list[int]]], work: Work, device: torch.device
) -> tuple[float, list[list[int]]]:
    """Decode all of it; return sentences a second, and the token ids of each."""
    start = clock(device)
    ids = [row for batch, search in work for row in decoder(batch, search)]
    return len(ids) / (clock(device) - start), ids


def prompt(task: Any, batch: Batch) -> tuple[Batch, Search]:
    """Choose what is decoded of an evaluation batch, and how.

    A source with the task's beam, to at most 50 tokens more than the longest source has; or a quarter of the context,
    continued greedily until it is full.
    """
    writes = architectures()[task.architecture].writes
    if writes == "translate":
        max_len = min(batch["input_ids"].shape[1] + 50, task.config.max_seq_len - 1)
        given = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return given, Search(task.beam, task.length_penalty, max_len, task.data.end_id)
    if writes == "generate":
        context = task.config.max_seq_len
        ids = batch["input_ids"][:, : max(1, context // 4)]
        end_id = require_token(task.data.tokenizer, task.data.special_tokens["eos_token"], "end_token")
        given = {"input_ids": ids, "attention_mask": ids.new_ones(ids.shape)}
        return given, Search(1, 0.0, context - ids.shape[1], end_id)
    raise InputError(f"--decode is for networks that write text, which {type(task).__name__} trains none of")


def decode(task: Any, given: Batch, search: Search) -> list[list[int]]:
    """Return token ids without start, prompt and end token, by this project's own search."""
    if architectures()[task.architecture].writes == "generate":
        prompts = given["input_ids"].tolist()
        return generate(task.model, prompts, max_new_tokens=search.max_len, temperature=0.0, eos_id=search.end_id)
    sources = (task.model, given["input_ids"], given["attention_mask"])
    settings = {"start_id": task.data.start_id, "end_id": search.end_id, "max_len": search.max_len}
    if search.beam == 1:
        return greedy_search(*sources, **settings)
    found = beam_search(*sources, **settings, beam=search.beam, length_penalty=lambda length: length**search.alpha)
    return [hypotheses[0].ids for hypotheses in found]
