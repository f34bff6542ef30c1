"""Blocks of tokens for language modelling: out of a prepared text, or out of a stream that is larger than the disk."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from src.coverage import MeasuredTokenizer
from src.data.store import IGNORED, BatchedRows, Key, encode
from src.data.streams import DocumentStream
from src.data.texts import cut
from src.errors import InputError


class Place(NamedTuple):
    """Where a reader is in a stream.

    Args:
        number: of the pass over the documents.
        block: the state before the block of documents that is read; None at the beginning of the pass.
        document: in the order of the block.
        offset: tokens of that document that were given out.
    """

    number: int = 0
    block: str | None = None
    document: int = 0
    offset: int = 0


Held = tuple[Place, NDArray[np.int64]]  # tokens of one document, and the place of the first of them

# A stream has no end: it starts over. It has a length all the same, since Lightning reads a batch ahead of a loader
# that has none, and the position in a checkpoint would be one batch too far.
ENDLESS = 10**9


def count_blocks(tokens: int, seq_len: int, free_offset: bool) -> int:
    """Count the blocks in a text; 0 if it is shorter than one block and its next token.

    With a free offset the last block must still end within the text. Without one the last block is filled up.
    """
    targets = tokens - 1
    if targets < seq_len:
        return 0
    return max(1, (targets - seq_len + 1) // seq_len) if free_offset else -(-targets // seq_len)


class PackedBlocks(BatchedRows):
    """Blocks of a text for language modelling, by (epoch, index).

    For training, each epoch cuts the text at another offset, a function of the seed and the epoch. For evaluation the
    blocks are the same each time, and every token but the first is a target exactly once: the last block is filled up
    with labels that are ignored. Index -1 is a row of such labels alone.

    Args:
        ids: (tokens,), the documents end to end, which may be memory-mapped.
        seq_len: tokens a block.
        seed: of the offsets; None for evaluation.
        split: of the data, for people.
    """

    def __init__(self, ids: NDArray[np.integer], seq_len: int, seed: int | None, split: str = "train") -> None:
        self.blocks = count_blocks(len(ids), seq_len, free_offset=seed is not None)
        if not self.blocks:
            raise InputError(
                f"the {split} split has {len(ids)} tokens, fewer than one block of seq_len {seq_len} and its "
                "next token: give more text or a smaller seq_len"
            )
        self.ids, self.seq_len, self.seed = ids, seq_len, seed
        self.slack = len(ids) - 1 - self.blocks * seq_len

    def __len__(self) -> int:
        return self.blocks

    def offset(self, epoch: int) -> int:
        """Choose where the first block of an epoch starts, in tokens."""
        if self.seed is None:
            return 0
        return int(np.random.default_rng([self.seed, epoch]).integers(min(self.seq_len, self.slack + 1)))

    def __getitems__(self, keys: list[Key]) -> dict[str, Tensor]:
        """Give a batch: ``input_ids`` and ``labels``, (batch, seq_len); ``labels[i]`` follows ``input_ids[i]``."""
        offsets = {epoch: self.offset(epoch) for epoch in {epoch for epoch, _ in keys}}
        start = np.array([max(index, 0) * self.seq_len + offsets[epoch] for epoch, index in keys])
        positions = start[:, None] + np.arange(self.seq_len + 1)
        last = len(self.ids) - 1
        window = torch.from_numpy(self.ids[np.minimum(positions, last)].astype(np.int64))
        beyond = (positions[:, 1:] > last) | (np.array([index for _, index in keys]) < 0)[:, None]
        return {
            "input_ids": window[:, :-1].contiguous(),
            "labels": window[:, 1:].masked_fill(torch.from_numpy(beyond), IGNORED),
        }


class StreamedPiece(NamedTuple):
    """A piece of a document, and where that stands in the stream."""

    text: str
    is_last: bool
    place: Place


class StreamedBlocks(IterableDataset[dict[str, Any]]):
    """Whole batches of blocks, tokenised as they are needed; the same interface as a resumable batch sampler.

    Each worker of each rank is a reader of its own documents; a rank takes a batch of each of its workers in turn. With
    its last batch a reader gives its place in the stream, where a resumed run goes on: no more is read again than the
    documents that are shuffled together.

    Args:
        stream: the documents.
        tokenizer: of the documents.
        end_ids: the tokens behind each document.
        seq_len: tokens a block.
        batch_size: blocks a batch.
        seed: of the order.
        workers: of each rank.
        rank: of this process among the data-parallel ones.
        world_size: how many of those there are.
        gather: collects an object of each process, which all call it.
    """

    def __init__(
        self,
        stream: DocumentStream,
        tokenizer: Tokenizer,
        end_ids: Sequence[int],
        seq_len: int,
        batch_size: int,
        *,
        seed: int = 0,
        workers: int = 1,
        rank: int = 0,
        world_size: int = 1,
        gather: Callable[[Any], list[Any]] = lambda mine: [mine],
    ) -> None:
        self.stream, self.tokenizer, self.end_ids = stream, tokenizer, end_ids
        self.seq_len, self.batch_size, self.seed = seq_len, batch_size, seed
        self.workers, self.rank, self.world_size, self.gather = workers, rank, world_size, gather
        self.epoch, self.position = 0, 0
        self.first = 0  # the position of the epoch's first batch
        self.overfit = False  # whether every epoch has the batches of the first one
        self.places: dict[int, Place] = {}  # of the readers of this rank, after the batches that were given out

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch where the last one ended; nothing if it is the current one, which may have been resumed."""
        if epoch != self.epoch:
            if self.overfit:
                self.position, self.places = 0, {}
            self.epoch, self.first = epoch, self.position

    def __len__(self) -> int:
        return ENDLESS

    def state_dict(self) -> dict[str, Any]:
        """The places of all readers, beside the epoch, where it began, and the position; all ranks must call it."""
        places = {reader: place._asdict() for of_rank in self.gather(self.places) for reader, place in of_rank.items()}
        readers = self.world_size * self.workers
        return {"epoch": self.epoch, "first": self.first, "position": self.position, "n": readers, "readers": places}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches that were given out."""
        readers = self.world_size * self.workers
        if state.get("n") != readers:
            was = f"{state['n']} processes (ranks x workers)" if "n" in state else "an earlier version"
            raise InputError(
                f"the stream of the checkpoint was read by {was}, and would now be by {readers}: set trainer.devices "
                "and data.num_workers as they were, or start a run from its weights by --model.pretrained"
            )
        self.epoch, self.first, self.position = state["epoch"], state["first"], state["position"]
        mine = range(self.rank * self.workers, (self.rank + 1) * self.workers)
        self.places = {i: Place(**state["readers"][i]) for i in mine if i in state["readers"]}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        # the first worker makes the next batch, whose turn it is
        worker = (self.position + (info.id if info else 0)) % self.workers
        reader = self.rank * self.workers + worker
        try:
            for batch, place in self._batches(reader, self.places.get(reader, Place())):
                yield {**batch, "reader": (reader, place)}
        except InputError as error:
            if info is None:
                raise
            yield {"refused": str(error)}  # raised in a worker, it would come with a traceback

    def took(self, batch: dict[str, Any]) -> None:
        """Note where the reader of a batch is after it, and take that out of the batch."""
        reader, place = batch.pop("reader")
        self.places[reader] = place

    def _pieces(self, reader: int, place: Place) -> Iterator[StreamedPiece]:
        """Yield a reader's documents from a place on, pass after pass, shuffled within the blocks that are read."""
        number, state, skip, _ = place
        readers = self.world_size * self.workers
        while True:
            is_empty = state is None and not skip
            for before, texts in self.stream.blocks(reader, readers, number, self.seed, state):
                order = np.random.default_rng([self.seed, number, crc32((before or "").encode())]).permutation(
                    len(texts)
                )
                for i in range(skip, len(texts)):
                    is_empty, here = False, Place(number, before, i)
                    yield from (StreamedPiece(text, is_last, here) for text, is_last in cut(texts[order[i]]))
                skip = 0
            if is_empty:
                raise InputError(
                    f"the stream has no documents to train on for reader {reader + 1} of {readers} (ranks x workers): "
                    "lower holdout_documents or num_workers, or give more text"
                )
            number, state = number + 1, None

    def _batches(self, reader: int, place: Place) -> Iterator[tuple[dict[str, Tensor], Place]]:
        """Yield a reader's batches from a place on, each with the place behind it."""
        size = self.batch_size * self.seq_len
        held: list[Held] = []
        held_tokens, drop, here = 0, place.offset, place
        measured = MeasuredTokenizer(self.tokenizer, "the stream")
        for piece, ids in encode(measured, self._pieces(reader, place), self.end_ids, group=100):
            if piece.place[:3] != here[:3]:
                here = piece.place
            elif drop:  # what was given out of the document before
                ids, drop = ids[drop:], max(drop - len(ids), 0)
            held.append((here, np.asarray(ids, np.int64)))
            held_tokens += len(ids)
            here = here._replace(offset=here.offset + len(ids))
            if held_tokens <= size:
                continue
            tokens = np.concatenate([part for _, part in held])
            start, shape = 0, (self.batch_size, self.seq_len)
            while start + size < len(tokens):
                window = torch.from_numpy(tokens[start : start + size + 1].copy())
                start += size
                held = _from(held, size)
                yield {"input_ids": window[:-1].view(shape), "labels": window[1:].view(shape)}, held[0][0]
            held_tokens = len(tokens) - start


def _from(held: list[Held], size: int) -> list[Held]:
    """Leave out the first ``size`` of some tokens."""
    for i, (place, part) in enumerate(held):
        if size < len(part):
            return [(place._replace(offset=place.offset + size), part[size:]), *held[i + 1 :]]
        size -= len(part)
    return []
