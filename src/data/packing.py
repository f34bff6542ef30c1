"""Tokenised text in memory-mapped files, cut into blocks."""

import json
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from src.coverage import MeasuredTokenizer
from src.errors import InputError
from src.tokenization import vocabulary_size

IGNORED = -100  # a label that is no target
Key = tuple[int, int]  # (epoch, index)


class PackedInfo(NamedTuple):
    """What a packed file holds: counts, and what is needed to read it and to notice damage."""

    documents: int
    tokens: int
    bytes: int  # of the documents as UTF-8
    dtype: str
    checksum: int
    lost_bytes: int = 0  # of the characters that the tokenizer cannot represent
    too_short: int = 0  # documents that were left out


def encode(
    tokenizer: MeasuredTokenizer, texts: Iterable[str], end_id: int, group: int = 1000
) -> Iterator[tuple[list[int], int]]:
    """The ids of each document with the end token, and its size in bytes; in parallel, ``group`` at a time."""
    remaining = iter(texts)
    while some := list(islice(remaining, group)):
        for text, encoding in zip(some, tokenizer.encode(some), strict=True):
            yield [*encoding.ids, end_id], len(text.encode())


def pack(tokenizer: MeasuredTokenizer, texts: Iterable[str], end_id: int, path: Path) -> PackedInfo:
    """Write the ids of all documents to one file, each with an end token behind it."""
    dtype = np.dtype(np.uint16 if vocabulary_size(tokenizer.tokenizer) <= 1 << 16 else np.uint32)
    documents = tokens = size = checksum = 0
    with path.open("wb") as file:
        for ids, n_bytes in encode(tokenizer, texts, end_id):
            raw = np.asarray(ids, dtype).tobytes()
            file.write(raw)
            documents, tokens, size = documents + 1, tokens + len(ids), size + n_bytes
            checksum = zlib.crc32(raw, checksum)
    return PackedInfo(documents, tokens, size, dtype.str, checksum, tokenizer.lost_bytes)


def is_complete(path: Path, info: PackedInfo) -> bool:
    """Whether a packed file is as it was written; it is read again only if it was changed after ``info.json``."""
    if not path.is_file() or path.stat().st_size != info.tokens * np.dtype(info.dtype).itemsize:
        return False
    described = path.with_name("info.json")  # the last file that is written
    if described.is_file() and path.stat().st_mtime_ns < described.stat().st_mtime_ns:
        return True
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 24):
            checksum = zlib.crc32(chunk, checksum)
    return checksum == info.checksum


def count_blocks(tokens: int, seq_len: int, free_offset: bool) -> int:
    """How many blocks there are in a text; 0 if it is shorter than one block and its next token.

    With a free offset the last block must still end within the text. Without one the last block is filled up.
    """
    targets = tokens - 1
    if targets < seq_len:
        return 0
    return max(1, (targets - seq_len + 1) // seq_len) if free_offset else -(-targets // seq_len)


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
        self.blocks = count_blocks(info.tokens, seq_len, free_offset=seed is not None)
        if not self.blocks:
            raise InputError(
                f"the {path.stem} split has {info.tokens} tokens, fewer than one block of seq_len {seq_len} and its "
                "next token: give more text or a smaller seq_len"
            )
        self.ids = np.memmap(path, info.dtype, "r")
        self.seq_len, self.seed = seq_len, seed
        self.slack = info.tokens - 1 - self.blocks * seq_len

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
        offsets = {epoch: self.offset(epoch) for epoch in {epoch for epoch, _ in keys}}
        start = np.array([max(index, 0) * self.seq_len + offsets[epoch] for epoch, index in keys])
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
