"""Rows that a BERT reads: one or two texts between special tokens, cut to a length, and padded to a batch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LENGTH_STEP = 8  # rows are padded to a multiple of it: few shapes, and aligned ones


def bert_row(parts: Sequence[Sequence[int]], seq_len: int, special_ids: dict[str, int]) -> tuple[list[int], int]:
    """``[CLS] text [SEP]`` or ``[CLS] first [SEP] second [SEP]`` in at most ``seq_len`` tokens.

    Returns:
        The ids, and where the second text begins: at the end of the row, where there is none.
    """
    cls, sep = special_ids["cls_token"], special_ids["sep_token"]
    cut = cut_parts(parts, seq_len - 1 - len(parts))
    return [cls, *(token for part in cut for token in (*part, sep))], len(cut[0]) + 2


def cut_parts(parts: Sequence[Sequence[int]], room: int) -> list[Sequence[int]]:
    """The beginnings of one or two texts that fit together; of two, the longer is cut first."""
    if len(parts) == 1:
        return [parts[0][:room]]
    first, second = map(len, parts)
    first = min(first, max(room - second, room - room // 2))
    return [parts[0][:first], parts[1][: room - first]]


def pad_rows(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows as one array, padded on the right, and its attention mask, 1 at real tokens: (rows, width) each."""
    lengths = np.array([len(row) for row in rows])
    width = -(-int(lengths.max()) // LENGTH_STEP) * LENGTH_STEP
    input_ids = np.full((len(rows), width), pad_id, np.int64)
    for i, row in enumerate(rows):
        input_ids[i, : len(row)] = row
    return input_ids, (np.arange(width) < lengths[:, None]).astype(np.int64)
