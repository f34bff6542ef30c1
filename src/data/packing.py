"""Blocks of tokens for language modelling: out of a prepared text, or out of a stream that is larger than the disk."""

from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import IterableDataset

from src.coverage import MeasuredTokenizer
from src.data.store import IGNORED, BatchedRows, Key, encode
from src.errors import InputError

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


class StreamedBlocks(IterableDataset[dict[str, Tensor]]):
    """Whole batches of blocks, tokenised as they are needed; the same interface as a resumable batch sampler.

    Each rank takes every ``world_size``-th document. A resumed run reads the stream again up to its position.

    Args:
        open_stream: makes an iterator over the documents of a pass, given its number.
        tokenizer: of the documents.
        end_id: the token behind each document.
        seq_len: tokens a block.
        batch_size: blocks a batch.
        rank: of this process among the data-parallel ones.
        world_size: how many of those there are.
    """

    def __init__(
        self,
        open_stream: Callable[[int], Iterator[str]],
        tokenizer: Tokenizer,
        end_id: int,
        seq_len: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.open_stream, self.tokenizer, self.end_id = open_stream, tokenizer, end_id
        self.seq_len, self.batch_size = seq_len, batch_size
        self.rank, self.world_size = rank, world_size
        self.epoch, self.position = 0, 0
        self.first = 0  # the position of the epoch's first batch
        self.overfit = False  # whether every epoch has the batches of the first one

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch where the last one ended; nothing if it is the current one, which may have been resumed."""
        if epoch != self.epoch:
            self.position = 0 if self.overfit else self.position
            self.epoch, self.first = epoch, self.position

    def state_dict(self) -> dict[str, Any]:
        """The position in the stream."""
        position = {"epoch": self.epoch, "first": self.first, "position": self.position}
        return {**position, "division": [self.world_size, self.batch_size]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches that were given out."""
        now = [self.world_size, self.batch_size]
        was = state.get("division", now)
        if was != now:
            raise InputError(
                f"the checkpoint has read its stream on {was[0]} data-parallel processes in batches of {was[1]}, each "
                f"its own documents, and this run is to on {now[0]} in batches of {now[1]}, where documents would be "
                "skipped or repeated: keep both, or start from the weights by --model.pretrained"
            )
        self.epoch, self.first, self.position = state["epoch"], state.get("first", 0), state["position"]

    def __len__(self) -> int:
        return ENDLESS

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        yield from islice(self._batches(), self.position, None)

    def _documents(self) -> Iterator[str]:
        """Yield those of all passes, one after the other."""
        for number in count():
            documents = self.open_stream(number)
            first = next(documents, None)
            if first is None:
                raise InputError("the stream has no documents to train on: lower holdout_documents or give more text")
            yield first
            yield from documents

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        mine = islice(self._documents(), self.rank, None, self.world_size)
        size = self.batch_size * self.seq_len
        held: list[np.ndarray[Any, Any]] = []
        held_tokens = 0
        measured = MeasuredTokenizer(self.tokenizer, "the stream")
        for _, ids in encode(measured, mine, self.end_id, group=100):
            held.append(np.asarray(ids, np.int64))
            held_tokens += len(ids)
            if held_tokens <= size:
                continue
            tokens = np.concatenate(held)
            start = 0
            while start + size < len(tokens):
                window = torch.from_numpy(tokens[start : start + size + 1].copy())
                shape = self.batch_size, self.seq_len
                yield {"input_ids": window[:-1].view(shape), "labels": window[1:].view(shape)}
                start += size
            held, held_tokens = [tokens[start:]], len(tokens) - start
