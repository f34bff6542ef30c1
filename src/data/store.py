"""The token store: rows of any lengths in memory-mapped files, and the data sets that make batches of them."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.lib.format import dtype_to_descr, write_array_header_1_0
from numpy.typing import DTypeLike, NDArray
from tokenizers import Encoding, Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from src.coverage import MeasuredTokenizer
from src.data.texts import GROUP, PieceLike, grouped
from src.tokenization import vocabulary_size

T = TypeVar("T")

IGNORED = -100  # a label that is no target
Key = tuple[int, int]  # (epoch, index); index -1 is a row without targets


class BatchedRows(Dataset[dict[str, Tensor]], ABC):
    """Rows by (epoch, index), read a batch at a time, each a function of the seed and these two alone.

    Index -1 is a row without any target: it fills up a batch.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitems__(self, keys: list[Key]) -> dict[str, Tensor]:
        """Give the rows of some keys as one batch."""

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        return {name: rows[0] for name, rows in self.__getitems__([key]).items()}


class ArrayWriter(AbstractContextManager["ArrayWriter"]):
    """Write an array of one dimension that grows at its end, as a ``.npy`` file.

    Args:
        path: of the file.
        dtype: of the array.
        length: values of a file that is there already, which stay; what is behind them is cut off.
    """

    def __init__(self, path: Path, dtype: DTypeLike, length: int = 0) -> None:
        self.dtype, self.length = np.dtype(dtype), length
        self._file = path.open("r+b" if length else "wb")
        self._write_header()
        self._file.truncate(self._file.seek(length * self.dtype.itemsize, os.SEEK_CUR))

    def _write_header(self) -> None:
        # numpy leaves room in it for a length of any size, so that it can be written again over the first one
        header = {"descr": dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.length,)}
        write_array_header_1_0(self._file, header)

    def extend(self, values: Sequence[int] | NDArray[np.generic]) -> None:
        """Append values."""
        self._file.write(np.asarray(values, self.dtype).tobytes())
        self.length += len(values)

    def sync(self) -> None:
        """Put what was written on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def __exit__(self, *error: object) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()


class RowWriter(AbstractContextManager["RowWriter"]):
    """Write rows end to end into ``NAME.npy``, and where each begins into ``NAME.starts.npy``.

    Args:
        lengths: of both, where they are there already and go on; see :class:`ArrayWriter`.
    """

    def __init__(self, folder: Path, name: str, dtype: DTypeLike, lengths: Sequence[int] = (0, 0)) -> None:
        self.values = ArrayWriter(folder / f"{name}.npy", dtype, lengths[0])
        self.starts = ArrayWriter(folder / f"{name}.starts.npy", np.int64, lengths[1])
        if not self.starts.length:
            self.starts.extend([0])

    def append(self, row: Sequence[int]) -> None:
        """Add a row."""
        self.extend(np.asarray(row, self.values.dtype), np.array([len(row)]))

    def extend(self, values: NDArray[np.integer], ends: NDArray[np.int64]) -> None:
        """Add several rows end to end; ``ends`` says where each ends among the values. What is behind goes on later."""
        begin = self.values.length
        self.values.extend(values)
        self.starts.extend(begin + ends)

    def __len__(self) -> int:
        return self.starts.length - 1

    def __exit__(self, *error: object) -> None:
        self.values.__exit__(*error)
        self.starts.__exit__(*error)


@dataclass(frozen=True)
class Rows(Sequence[NDArray[np.integer]]):
    """Rows as a :class:`RowWriter` wrote them.

    Args:
        values: (values,), those of all rows, end to end.
        starts: (rows + 1,), where each row begins in ``values``, and the end.
    """

    values: NDArray[np.integer]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> NDArray[np.integer]:  # type: ignore[override]
        return self.values[self.starts[index] : self.starts[index + 1]]


def is_positions(path: Path) -> bool:
    """Tell whether an array says where the rows of another one begin, and where the last one ends."""
    return path.name.endswith((".starts.npy", ".documents.npy"))


def open_array(folder: Path, name: str) -> NDArray[Any]:
    """Memory-map the array ``NAME.npy``."""
    return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))


def open_rows(folder: Path, name: str) -> Rows:
    """Memory-map what a :class:`RowWriter` wrote."""
    return Rows(open_array(folder, name), open_array(folder, f"{name}.starts"))


def token_dtype(tokenizer: Tokenizer) -> type[np.unsignedinteger]:
    """Choose the smallest type that holds every id."""
    return np.uint16 if vocabulary_size(tokenizer) <= 1 << 16 else np.uint32


def end_to_end(
    rows: Sequence[Sequence[int]], dtype: type[np.unsignedinteger]
) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Put rows end to end: the values of all, and where each row ends among them."""
    ends = np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)))
    return np.fromiter(chain.from_iterable(rows), dtype, int(ends[-1]) if len(ends) else 0), ends


def encode(
    tokenizer: MeasuredTokenizer, pieces: Iterable[PieceLike], end_ids: Sequence[int], group: int = GROUP
) -> Iterator[tuple[Any, list[int]]]:
    """Yield each piece with its ids, an end behind the last of a document; a group at a time, in parallel."""
    for some, encodings in ahead(
        (some, tokenizer.encode([piece.text for piece in some])) for some in grouped(pieces, group)
    ):
        pairs = zip(some, encodings, strict=True)
        yield from ((piece, with_end(piece, encoding, end_ids)) for piece, encoding in pairs)


def with_end(piece: PieceLike, encoding: Encoding, end_ids: Sequence[int]) -> list[int]:
    """Give the ids of a piece, with those that end a document behind its last."""
    return [*encoding.ids, *end_ids] if piece.is_last else encoding.ids


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield items of which the next one is made in a thread meanwhile: tokenising and writing take turns no more."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, items, None)
        while (item := following.result()) is not None:
            following = thread.submit(next, items, None)
            yield item
