"""Tokenised text in memory-mapped files, cut into blocks."""

import json
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from src.errors import InputError

IGNORED = -100  # a label that is no target
Key = tuple[int, int]  # (epoch, index)


class PackedInfo(NamedTuple):
    """What a packed file holds: counts, and what is needed to read it and to notice damage."""

    documents: int
    tokens: int
    bytes: int  # of the documents as UTF-8
    dtype: str
    checksum: int


def encode(
    tokenizer: Tokenizer, texts: Iterable[str], end_id: int, group: int = 1000
) -> Iterator[tuple[list[int], int]]:
    """The ids of each document with the end token, and its size in bytes; in parallel, ``group`` at a time."""
    remaining = iter(texts)
    while some := list(islice(remaining, group)):
        for text, encoding in zip(some, tokenizer.encode_batch_fast(some, add_special_tokens=False), strict=True):
            yield [*encoding.ids, end_id], len(text.encode())


def pack(tokenizer: Tokenizer, texts: Iterable[str], end_id: int, path: Path) -> PackedInfo:
    """Write the ids of all documents to one file, each with an end token behind it."""
    dtype = np.dtype(np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.uint32)
    documents = tokens = size = checksum = 0
    with path.open("wb") as file:
        for ids, n_bytes in encode(tokenizer, texts, end_id):
            raw = np.asarray(ids, dtype).tobytes()
            file.write(raw)
            documents, tokens, size = documents + 1, tokens + len(ids), size + n_bytes
            checksum = zlib.crc32(raw, checksum)
    return PackedInfo(documents, tokens, size, dtype.str, checksum)


def is_whole(path: Path, info: PackedInfo) -> bool:
    """Whether a packed file is as it was written."""
    if not path.is_file() or path.stat().st_size != info.tokens * np.dtype(info.dtype).itemsize:
        return False
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 24):
            checksum = zlib.crc32(chunk, checksum)
    return checksum == info.checksum


class PackedBlocks(Dataset[dict[str, Tensor]]):
    """Blocks of a packed file for language modelling, by (epoch, index).

    For training, each epoch cuts the text at another offset, a function of the seed and the epoch. For evaluation the
    blocks are the same each time, and every token but the first is a target exactly once: the last block is filled up
    with labels that are ignored. Index -1 is a row of such labels alone.

    Args:
        path: of the packed file.
        info: what it holds.
        seq_len: tokens a block.
        seed: of the offsets; none for evaluation.

    Raises:
        InputError: the text is shorter than one block.
    """

    def __init__(self, path: Path, info: PackedInfo, seq_len: int, seed: int | None) -> None:
        if info.tokens < seq_len + 1:
            raise InputError(
                f"the {path.stem} split has {info.tokens} tokens, fewer than one block of seq_len {seq_len} and its "
                "next token: give more text or a smaller seq_len"
            )
        self.ids = np.memmap(path, info.dtype, "r")
        self.seq_len, self.seed = seq_len, seed
        targets = info.tokens - 1
        # with a free offset the last block must still end within the text
        self.blocks = -(-targets // seq_len) if seed is None else max(1, (targets - seq_len + 1) // seq_len)
        self.slack = targets - self.blocks * seq_len

    def __len__(self) -> int:
        return self.blocks

    def offset(self, epoch: int) -> int:
        """Where the first block of an epoch starts, in tokens."""
        if self.seed is None:
            return 0
        return int(np.random.default_rng([self.seed, epoch]).integers(min(self.seq_len, self.slack + 1)))

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        return {name: rows[0] for name, rows in self.__getitems__([key]).items()}

    def __getitems__(self, keys: list[Key]) -> dict[str, Tensor]:
        """A batch: ``input_ids`` and ``labels``, (batch, seq_len) each; ``labels[i]`` follows ``input_ids[i]``."""
        start = np.array([max(index, 0) * self.seq_len + self.offset(epoch) for epoch, index in keys])
        place = start[:, None] + np.arange(self.seq_len + 1)
        last = len(self.ids) - 1
        window = torch.from_numpy(self.ids[np.minimum(place, last)].astype(np.int64))
        beyond = (place[:, 1:] > last) | (np.array([index for _, index in keys]) < 0)[:, None]
        return {
            "input_ids": window[:, :-1].contiguous(),
            "labels": window[:, 1:].masked_fill(torch.from_numpy(beyond), IGNORED),
        }


def write_info(path: Path, infos: dict[str, PackedInfo]) -> None:
    """Save what the packed files of each split hold."""
    path.write_text(json.dumps({split: info._asdict() for split, info in infos.items()}), encoding="utf-8")


def read_info(path: Path) -> dict[str, PackedInfo]:
    """What :func:`write_info` saved."""
    return {split: PackedInfo(**info) for split, info in json.loads(path.read_text(encoding="utf-8")).items()}
