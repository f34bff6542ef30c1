"""Blocks out of a stream of documents, for text that is larger than the disk."""

from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import IterableDataset

from src.coverage import MeasuredTokenizer
from src.data.packing import encode
from src.errors import InputError

# A stream has no end: it starts over. It has a length all the same, since Lightning reads a batch ahead of a loader
# that has none, and the position in a checkpoint would be one batch too far.
ENDLESS = 10**9


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

    def __len__(self) -> int:
        return ENDLESS

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        yield from islice(self._batches(), self.position, None)

    def _documents(self) -> Iterator[str]:
        """Those of all passes, one after the other."""
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
        for ids, _ in encode(measured, mine, self.end_id, group=100):
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
