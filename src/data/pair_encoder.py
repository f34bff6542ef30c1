"""Pairs of sentences as token ids: a group of them at a time, in a process that needs nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.coverage import MeasuredTokenizer
from src.data.parallel import Pair
from src.data.store import end_to_end


class EncodedPairs(NamedTuple):
    """A group of pairs.

    Args:
        sides: the ids of all sources, end to end, and where each ends among them; the same of the targets.
        reasons: why each pair is not trained on; None where it is.
        counts: each tokenizer's.
    """

    sides: list[tuple[NDArray[np.integer], NDArray[np.int64]]]
    reasons: list[str | None]
    counts: list[dict[str, Any]]


@dataclass(frozen=True)
class PairEncoder:
    """Encode pairs of a split, each side with what it begins and ends with.

    What cannot be trained on is left out of ``train``. Of the other splits nothing is, or their scores would not
    compare: only the ids of what is over-long are cut.

    Args:
        tokenizers: of source and target.
        dtypes: of their ids.
        begins: what each side begins with, one id or none.
        ends: the id that ends each.
        max_length: tokens of the longer side at most, what it begins and ends with included.
        max_ratio: of the longer side's length to the shorter one's.
        is_train: whether the pairs are trained on.
    """

    tokenizers: Sequence[MeasuredTokenizer]
    dtypes: Sequence[type[np.unsignedinteger]]
    begins: Sequence[list[int]]
    ends: Sequence[int]
    max_length: int
    max_ratio: float
    is_train: bool

    def __call__(self, pairs: list[Pair]) -> EncodedPairs:
        tokenizers = [tokenizer.apart() for tokenizer in self.tokenizers]
        sides = [
            [[*begin, *encoding.ids, end] for encoding in tokenizer.encode(texts)]
            for tokenizer, begin, end, texts in zip(
                tokenizers, self.begins, self.ends, zip(*pairs, strict=True), strict=True
            )
        ]
        reasons = [self._reason(*row) for row in zip(pairs, *sides, strict=True)]
        if self.is_train:
            sides = [[ids for ids, reason in zip(side, reasons, strict=True) if reason is None] for side in sides]
        most = self.max_length
        sides = [[ids if len(ids) <= most else [*ids[: most - 1], ids[-1]] for ids in side] for side in sides]
        flat = [end_to_end(side, dtype) for side, dtype in zip(sides, self.dtypes, strict=True)]
        return EncodedPairs(flat, reasons, [tokenizer.counts for tokenizer in tokenizers])

    def _reason(self, pair: Pair, source: list[int], target: list[int]) -> str | None:
        if not (pair[0].strip() and pair[1].strip()):
            return "empty"
        short, long = sorted((len(source), len(target)))
        if long > self.max_length:
            return "over-long"
        return "lopsided" if long > self.max_ratio * short else None
