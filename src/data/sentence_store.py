"""Documents as tokenised sentences in memory-mapped files."""

import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from tokenizers import Encoding

from src.coverage import MeasuredTokenizer
from src.data.packing import PackedInfo
from src.data.pairs import SentenceTokens
from src.data.progress import announce
from src.data.sentences import split_sentences
from src.tokenization import vocabulary_size

# why a document with fewer than so many sentences is left out
WHY = {1: "without any token", 2: "of fewer than two sentences (which end with . ! ? and their like, or with a line)"}
PARTS = ("tokens", "word_starts", "sentences", "documents")


class _ArrayFile:
    """An array on disk that grows at its end."""

    def __init__(self, path: Path, dtype: type[np.generic]) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        self.length = self.checksum = 0

    def __enter__(self) -> Self:
        self._file = self.path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, values: list[int]) -> None:
        raw = np.asarray(values, self.dtype).tobytes()
        self._file.write(raw)
        self.length += len(values)
        self.checksum = zlib.crc32(raw, self.checksum)


def write_sentences(
    tokenizer: MeasuredTokenizer, texts: Iterable[str], folder: Path, split: str, least: int = 2
) -> dict[str, PackedInfo]:
    """Write the sentences of a split, without the documents that have fewer than ``least``.

    Returns:
        What each of the files holds, by its name without ``.bin``.
    """
    small = vocabulary_size(tokenizer.tokenizer) <= 1 << 16
    dtypes = (np.uint16 if small else np.uint32, np.bool_, np.int64, np.int64)
    names = [f"{split}.{part}" for part in PARTS]
    files = [_ArrayFile(folder / f"{name}.bin", dtype) for name, dtype in zip(names, dtypes, strict=True)]
    documents = size = too_short = 0
    tokens, word_starts, sentences, ends = files
    with tokens, word_starts, sentences, ends:
        sentences.append([0])
        ends.append([0])
        for text, encodings in _encode(tokenizer, texts):
            if len(encodings) < least:
                too_short += 1
                continue
            documents, size = documents + 1, size + len(text.encode())
            for encoding in encodings:
                tokens.append(encoding.ids)
                word_starts.append(_word_starts(encoding))
                sentences.append([tokens.length])
            ends.append([sentences.length - 1])
    if too_short:
        announce(f"left out of {tokenizer.where}: {too_short:,} of {documents + too_short:,} documents, {WHY[least]}")
    lost = tokenizer.lost_bytes
    return {
        name: PackedInfo(documents, file.length, size, file.dtype.str, file.checksum, lost, too_short)
        for name, file in zip(names, files, strict=True)
    }


def _encode(tokenizer: MeasuredTokenizer, texts: Iterable[str]) -> Iterator[tuple[str, list[Encoding]]]:
    """Each document with its sentences, without those of no token; in parallel, many at a time."""
    remaining = iter(texts)
    while group := list(islice(remaining, 100)):
        split = [split_sentences(text) for text in group]
        flat = iter(tokenizer.encode([s for sentences in split for s in sentences], with_words=True))
        for text, sentences in zip(group, split, strict=True):
            yield text, [encoding for encoding in islice(flat, len(sentences)) if encoding.ids]


def _word_starts(encoding: Encoding) -> list[int]:
    """1 at the first token of each word of the tokenizer's, whatever marks its vocabulary uses."""
    words = encoding.word_ids
    return [int(i == 0 or word is None or word != words[i - 1]) for i, word in enumerate(words)]


def read_sentences(folder: Path, split: str, infos: dict[str, PackedInfo]) -> SentenceTokens:
    """What :func:`write_sentences` wrote, memory-mapped."""
    names = [f"{split}.{part}" for part in PARTS]
    return SentenceTokens(*(np.memmap(folder / f"{name}.bin", infos[name].dtype, "r") for name in names))
