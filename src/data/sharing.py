"""Preparation that several machines share: each prepares a part of every split, and whoever comes last joins them."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.data.journal import INFO, is_complete
from src.data.progress import announce
from src.data.store import ArrayWriter, is_positions
from src.errors import InputError

CHUNK = 1 << 22  # values that are copied at once


class Part(NamedTuple):
    """One of so many parts, about equally large and one behind the other; the first is number 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read ``2/8``, the second of eight."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise InputError(f"--part is {text!r}: name one of several, such as 2/8, the second of eight")
        return cls(int(found[1]), int(found[2]))

    def bounds(self, n: int) -> tuple[int, int]:
        """Say which of ``n`` rows the part has: the first, and the one after its last."""
        return (self.number - 1) * n // self.of, self.number * n // self.of

    def of_rows(self, several: Sequence[Any]) -> list[Any]:
        """Choose this part of the rows of several sources, one behind the other."""
        low, high = self.bounds(sum(map(len, several)))
        found, begin = [], 0
        for rows in several:
            first, last = (min(max(bound - begin, 0), len(rows)) for bound in (low, high))
            found.append(rows.select(np.arange(first, last)))
            begin += len(rows)
        return found

    def folder(self, whole: Path) -> Path:
        """Where this part of what is prepared in a folder lies."""
        return whole.with_name(f"{whole.name}.part{self.number}of{self.of}")


def parts_of(whole: Path) -> list[Path]:
    """List the folders of all parts of a folder, in order, if they are complete; none if one is missing."""
    found = [re.search(r"\.part1of(\d+)$", path.name) for path in whole.parent.glob(f"{whole.name}.part1of*")]
    for n in (int(match[1]) for match in found if match):
        folders = [Part(i, n).folder(whole) for i in range(1, n + 1)]
        missing = [folder.name for folder in folders if not is_complete(folder)]
        if not missing:
            return folders
        announce(f"of {n} parts of {whole} {len(missing)} are not complete ({missing[0]}): they are not used")
    return []


def join(folders: Sequence[Path], aside: Path) -> dict[str, dict[str, int]]:
    """Put the arrays and texts of parts end to end into a folder, and give the counts of each split, added up."""
    announce(f"joining {len(folders)} parts")
    infos = [json.loads((folder / INFO).read_bytes()) for folder in folders]
    for name in infos[0]["files"]:
        parts = [folder / name for folder in folders]
        if name.endswith(".npy"):
            _join_arrays(parts, aside / name)
        elif name.endswith(".jsonl"):
            with (aside / name).open("wb") as joined:
                for part in parts:
                    with part.open("rb") as file:
                        shutil.copyfileobj(file, joined)
        else:  # a tokenizer
            if len({part.read_bytes() for part in parts}) > 1:
                raise InputError(f"{name} differs between {parts[0].parent} and the other parts: prepare them anew")
            shutil.copyfile(parts[0], aside / name)
    counts: dict[str, Counter[str]] = {split: Counter() for split in infos[0]["splits"]}
    for info in infos:
        for split, of in info["splits"].items():
            counts[split].update(of)
    return {split: dict(of) for split, of in counts.items()}


def _join_arrays(paths: Sequence[Path], joined: Path) -> None:
    arrays = [np.load(path, mmap_mode="r") for path in paths]
    of_positions, end = is_positions(joined), 0
    with ArrayWriter(joined, arrays[0].dtype) as writer:
        if of_positions:  # each begins with 0, and ends with where the next one begins
            writer.extend([0])
        for array in arrays:
            for start in range(int(of_positions), len(array), CHUNK):
                writer.extend(array[start : start + CHUNK] + end)
            end += int(array[-1]) if of_positions else 0
