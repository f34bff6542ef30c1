"""Tokenised pairs of sentences in memory-mapped files, and batches of them."""

import json
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from src.coverage import MeasuredTokenizer
from src.data.malformed import Malformed
from src.data.packing import IGNORED, Key, PackedInfo, is_complete
from src.data.parallel import Pair

SIDES = ("source", "target")
DTYPE = np.dtype(np.uint32)
GROUP = 1000  # pairs that are tokenised together, in parallel


@dataclass(frozen=True)
class Filter:
    """Which pairs are trained on.

    Args:
        max_length: tokens of either side at most, with the end token.
        max_ratio: how many times as long as the other a side may be.
    """

    max_length: int
    max_ratio: float

    def objection(self, texts: Pair, lengths: tuple[int, int]) -> str | None:
        """Why a pair is left out, or nothing."""
        if not (texts[0].strip() and texts[1].strip()):
            return "empty"
        if max(lengths) > self.max_length:
            return "over-long"
        return "lopsided" if max(lengths) > self.max_ratio * min(lengths) else None


class PairTokenizers(NamedTuple):
    """A tokenizer for each side, the same one for both where the vocabulary is joint, and their end tokens."""

    source: MeasuredTokenizer
    target: MeasuredTokenizer
    source_end: int
    target_end: int

    def encode(self, pairs: Iterable[Pair]) -> Iterator[tuple[Pair, list[int], list[int]]]:
        """Each pair with the ids of both sides, end tokens included."""
        remaining = iter(pairs)
        while group := list(islice(remaining, GROUP)):
            sources, targets = zip(*group, strict=True)
            encoded = zip(
                group,
                self.source.encode(sources),
                self.target.encode(targets),
                strict=True,
            )
            for pair, source, target in encoded:
                yield pair, [*source.ids, self.source_end], [*target.ids, self.target_end]


class _Writer:
    """One side of a split, written to a file."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.lengths, self.checksum = file, array("I"), 0

    def add(self, ids: list[int]) -> None:
        raw = np.asarray(ids, DTYPE).tobytes()
        self.file.write(raw)
        self.lengths.append(len(ids))
        self.checksum = zlib.crc32(raw, self.checksum)

    def info(self) -> PackedInfo:
        tokens = sum(self.lengths)
        return PackedInfo(len(self.lengths), tokens, tokens * DTYPE.itemsize, DTYPE.str, self.checksum)


def write_pairs(
    folder: Path, split: str, pairs: Iterable[Pair], tokenizers: PairTokenizers, keep: Filter, malformed: Malformed
) -> dict[str, Any]:
    """Write the ids, the lengths and (but for training) the texts of a split to files named after it.

    What cannot be trained on is left out of ``train``. Of the other splits nothing is, or their scores would not
    compare: only the ids of what is over-long are cut.

    Returns:
        What each side holds, and how many pairs were left out or cut, and why.
    """
    counts: Counter[str] = Counter()
    texts: list[Pair] = []
    with (folder / f"{split}.source.bin").open("wb") as a, (folder / f"{split}.target.bin").open("wb") as b:
        sides = (_Writer(a), _Writer(b))
        for number, (pair, *ids) in enumerate(tokenizers.encode(pairs), start=1):
            objection = keep.objection(pair, (len(ids[0]), len(ids[1])))
            if split == "train" and objection:
                counts[f"{objection}, left out"] += 1
                if objection != "lopsided":  # which is a matter of taste
                    malformed.add(objection, f"pair {number:,}", " | ".join(pair))
                continue
            if split != "train":
                counts["over-long, cut"] += objection == "over-long"
                texts.append(pair)
            for side, row in zip(sides, ids, strict=True):
                side.add(row if len(row) <= keep.max_length else [*row[: keep.max_length - 1], row[-1]])
    np.save(folder / f"{split}.lengths.npy", np.stack([np.asarray(side.lengths, np.int32) for side in sides], 1))
    (folder / f"{split}.texts.json").write_text(json.dumps(texts), encoding="utf-8")
    infos = {name: side.info()._asdict() for name, side in zip(SIDES, sides, strict=True)}
    for name, tokenizer in zip(SIDES, (tokenizers.source, tokenizers.target), strict=True):
        counts[f"{name} characters not represented"] = tokenizer.lost.total()
    return {**infos, "counts": {what: n for what, n in counts.items() if n}}


def pairs_are_complete(folder: Path, split: str, info: dict[str, Any]) -> bool:
    """Whether the files of a split are as they were written."""
    lengths = np.load(folder / f"{split}.lengths.npy")
    texts = json.loads((folder / f"{split}.texts.json").read_text(encoding="utf-8"))
    return (split == "train" or len(texts) == len(lengths)) and all(
        is_complete(folder / f"{split}.{side}.bin", PackedInfo(**info[side]))
        and lengths[:, i].sum() == info[side]["tokens"]
        for i, side in enumerate(SIDES)
    )


class TranslationPairs(Dataset[dict[str, Tensor]]):
    """The pairs of a split by (epoch, index); index -1 is a row without targets.

    Args:
        folder: where :func:`write_pairs` wrote.
        split: which of the splits there.
        start_id: what the decoder reads before the target.
        source_end: ends each source, and fills rows up behind it.
    """

    def __init__(self, folder: Path, split: str, start_id: int, source_end: int) -> None:
        self.start_id, self.source_end = start_id, source_end
        self.lengths: NDArray[np.int32] = np.load(folder / f"{split}.lengths.npy")
        self._ids = [self._open(folder / f"{split}.{side}.bin") for side in SIDES]
        self._ends = self.lengths.cumsum(0, dtype=np.int64)

    @staticmethod
    def _open(path: Path) -> NDArray[np.uint32]:
        # an empty file cannot be mapped
        return np.memmap(path, DTYPE, "r") if path.stat().st_size else np.zeros(0, DTYPE)

    def __len__(self) -> int:
        return len(self.lengths)

    def _row(self, side: int, index: int) -> NDArray[np.int64]:
        end = self._ends[index, side]
        return self._ids[side][end - self.lengths[index, side] : end].astype(np.int64)

    def targets(self, most: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """What the decoder reads before each target token of the split, and the token; the first ``most`` of them."""
        ids = self._ids[1][:most]
        contexts = np.concatenate([ids[:1], ids[:-1]])
        starts = self._ends[:, 1] - self.lengths[:, 1]
        contexts[starts[starts < len(ids)]] = self.start_id
        return contexts, ids

    def __getitems__(self, keys: list[Key]) -> dict[str, Tensor]:
        """A batch, padded on the right to its longest rows: S tokens of the sources, T of the targets.

        Returns:
            ``input_ids`` and ``attention_mask`` (batch, S), ``decoder_input_ids`` and ``labels`` (batch, T), and
            ``index`` (batch,), the place of each pair in its split.
        """
        indices = [index for _, index in keys]
        nothing = np.zeros(0, np.int64)
        # a source without a token would leave attention nothing to see
        sources = [self._row(0, i) if i >= 0 else np.array([self.source_end]) for i in indices]
        targets = [self._row(1, i) if i >= 0 else nothing for i in indices]
        labels = _padded(targets, IGNORED)
        before = [np.concatenate([[self.start_id], target[:-1]]) for target in targets]
        return {
            "input_ids": _padded(sources, self.source_end),
            "attention_mask": _padded([np.ones_like(source) for source in sources], 0),
            "decoder_input_ids": _padded(before, self.start_id),
            "labels": labels if labels.shape[1] else torch.full((len(keys), 1), IGNORED),
            "index": torch.tensor(indices),
        }


def _padded(rows: list[NDArray[np.int64]], fill: int) -> Tensor:
    """(batch, longest), filled up on the right."""
    padded = np.full((len(rows), max(map(len, rows))), fill, np.int64)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return torch.from_numpy(padded)
