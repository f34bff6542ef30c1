"""The token store: rows of any lengths in memory-mapped files, and the data sets that make batches of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import dtype_to_descr, write_array_header_1_0
from numpy.typing import DTypeLike, NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from src.coverage import MeasuredTokenizer
from src.tokenization import vocabulary_size

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
    """Write an array of one dimension that grows at its end, as a ``.npy`` file."""

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self.dtype, self.length = np.dtype(dtype), 0
        self._file = path.open("wb")
        self._write_header()

    def _write_header(self) -> None:
        # numpy leaves room in it for a length of any size, so that it can be written again over the first one
        header = {"descr": dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.length,)}
        write_array_header_1_0(self._file, header)

    def extend(self, values: Sequence[int] | NDArray[np.integer]) -> None:
        """Append values."""
        self._file.write(np.asarray(values, self.dtype).tobytes())
        self.length += len(values)

    def __exit__(self, *error: object) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()


class RowWriter(AbstractContextManager["RowWriter"]):
    """Write rows end to end into ``NAME.npy``, and where each begins into ``NAME.starts.npy``."""

    def __init__(self, folder: Path, name: str, dtype: DTypeLike) -> None:
        self.values = ArrayWriter(folder / f"{name}.npy", dtype)
        self.starts = ArrayWriter(folder / f"{name}.starts.npy", np.int64)
        self.starts.extend([0])

    def append(self, row: Sequence[int]) -> None:
        """Add a row."""
        self.values.extend(row)
        self.starts.extend([self.values.length])

    def __len__(self) -> int:
        return self.starts.length - 1

    def __exit__(self, *error: object) -> None:
        self.values.__exit__(*error)
        self.starts.__exit__(*error)


def write_rows(folder: Path, name: str, rows: Iterable[Sequence[int]], dtype: DTypeLike = np.int64) -> None:
    """Write rows that are at hand, as a :class:`RowWriter` does."""
    with RowWriter(folder, name, dtype) as writer:
        for row in rows:
            writer.append(row)


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


def open_array(folder: Path, name: str) -> NDArray[Any]:
    """Memory-map the array ``NAME.npy``."""
    return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))


def open_rows(folder: Path, name: str) -> Rows:
    """Memory-map what a :class:`RowWriter` wrote."""
    return Rows(open_array(folder, name), open_array(folder, f"{name}.starts"))


def token_dtype(tokenizer: Tokenizer) -> type[np.unsignedinteger]:
    """Choose the smallest type that holds every id."""
    return np.uint16 if vocabulary_size(tokenizer) <= 1 << 16 else np.uint32


def encode(
    tokenizer: MeasuredTokenizer, texts: Iterable[str], end_id: int, group: int = 1000
) -> Iterator[tuple[str, list[int]]]:
    """Yield each document with its ids and the end token; ``group`` at a time, in parallel."""
    remaining = iter(texts)
    while some := list(islice(remaining, group)):
        for text, encoding in zip(some, tokenizer.encode(some), strict=True):
            yield text, [*encoding.ids, end_id]
