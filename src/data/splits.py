"""Which split a file, a folder or a part of a dataset is, by its name; and splits cut out of the training rows."""

import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, TypeVar

import numpy as np

from src.data.progress import announce
from src.errors import InputError

T = TypeVar("T")

SPLITS = ("train", "validation", "test")
# a word of a name -> the split; "eval" is what is missing of validation and test, the first first
WORDS = {"train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation"}
WORDS |= {"dev": "validation", "test": "test", "testing": "test", "eval": "eval", "evaluation": "eval"}
NAMED = 3  # of the files that are not used


def split_of(name: str) -> str | None:
    """Tell the split of a relative path or a name: of the first folder or the file that says so by whole words.

    ``data/train-00000-of-00002.parquet``, ``dev/en.txt`` and ``my_val.jsonl.gz`` are train, validation, validation;
    ``devices.txt`` and ``contest.txt`` are none.
    """
    for part in PurePath(name).parts:
        found = {WORDS[word] for word in re.split(r"[^a-z]+", part.lower()) if word in WORDS}
        if len(found) > 1:
            raise InputError(f"the name {name} says {' and '.join(sorted(found))}: rename it, it can be one split only")
        if found:
            return found.pop()
    return None


def split_files(files: Mapping[Path, str], source: str) -> dict[str, list[Path]]:
    """Divide files into splits by their names, in order.

    Files whose names say no split are for training, unless others say that they are. What is not used, and which files
    are held out by their names, is told.

    Args:
        files: with their names, relative to the folder that was given.
        source: that folder, for people.
    """
    found = _by_split(files)
    unused = found.pop("", [])
    if unused and "train" not in found:
        found["train"], unused = unused, []
    unused += found.pop("eval", [])
    if "train" not in found:
        found = {"train": _only(found, source, tell=len(files) > 1)}
    _tell_unused(source, [files[file] for file in unused])
    if len(found) > 1:
        named = {split: [files[file] for file in found[split]] for split in SPLITS if split in found}
        announce(f"splits of {source}, by name: {'; '.join(f'{split} is {_shown(n)}' for split, n in named.items())}")
    return found


def split_parts(parts: Mapping[str, T], source: str, asked: Mapping[str, str] | None = None) -> dict[str, T]:
    """Choose the part of a dataset that is each split: the one of just that name, or the only one whose name says so.

    Args:
        parts: by their own names.
        source: of them, for people, who are told which parts are not used.
        asked: split -> the name of its part, where that is known.
    """
    asked = asked or {}
    if missing := [name for name in asked.values() if name not in parts]:
        raise InputError(f"{source} has no split {missing[0]!r}: it has {', '.join(sorted(parts))}")
    chosen = dict(asked)
    for split, names in _by_split({name: name for name in parts if name not in asked.values()}).items():
        if split in SPLITS and split not in chosen and (split in names or len(names) == 1):
            chosen[split] = split if split in names else names[0]
    if "train" not in chosen:
        chosen = {"train": _only({name: name for name in parts}, source, tell=True)}
    _tell_unused(source, [name for name in parts if name not in chosen.values()])
    return {split: parts[chosen[split]] for split in SPLITS if split in chosen}


def _by_split(names: Mapping[T, str]) -> dict[str, list[T]]:
    """Group what has names by the split that they say; under an empty key what says none."""
    found: dict[str, list[T]] = {}
    for item, name in names.items():
        found.setdefault(split_of(name) or "", []).append(item)
    missing = next((split for split in SPLITS[1:] if split not in found), None)
    if "eval" in found and missing:
        found[missing] = found.pop("eval")
    return found


def _only(found: Mapping[str, T], source: str, tell: bool) -> T:
    """Choose what is to be trained on where no name says so: all there is, if it is one split."""
    if len(found) != 1:
        raise InputError(f"{source} has the splits {', '.join(found)}: one of them must be 'train'")
    if tell:
        announce(f"{source} has nothing but {next(iter(found))!r}: that is trained on")
    return next(iter(found.values()))


def _shown(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")


def _tell_unused(source: str, names: list[str]) -> None:
    if names:
        announce(f"not used of {source}: {_shown(names)} (its name says no split, or one that another has)")


def cut_rows(
    source: str,
    splits: dict[str, Any],
    validation_fraction: float,
    test_fraction: float,
    texts: Iterable[Hashable] | None = None,
    labels: Iterable[Hashable] = (),
) -> dict[str, Any]:
    """Cut the splits that are missing out of the training rows, always the same ones whatever the seed of a run.

    Args:
        source: of the rows, for people, who are told how many were held out.
        splits: by their names.
        validation_fraction: fraction of the rows for validation.
        test_fraction: the same for testing.
        texts: of the rows, so that those with equal ones are in one split; each row is another one if None.
        labels: of the rows, so that there is some row to train on of each.
    """
    train, fractions = splits["train"], {"validation": validation_fraction, "test": test_fraction}
    wanted = {name: fraction for name, fraction in fractions.items() if fraction and name not in splits}
    if not wanted:
        return splits
    numbers: dict[Hashable, int] = {}
    # (rows,), of the different rows
    row_numbers = np.array([numbers.setdefault(text, len(numbers)) for text in texts or range(len(train))], np.int64)
    order = np.random.default_rng(0).permutation(len(numbers))  # not the run's seed: runs must compare
    place = np.argsort(order)
    last: dict[Hashable, int] = {}
    for label, number in zip(labels, row_numbers, strict=False):
        last[label] = max(last.get(label, 0), int(place[number]))
    kept = list(dict.fromkeys(last.values()))
    order = np.concatenate([np.delete(order, kept), order[kept]])  # what is held out is taken from the front
    cut = {}
    for name, fraction in wanted.items():
        n = max(1, round(len(numbers) * fraction))
        cut[name], order = train.select(np.flatnonzero(np.isin(row_numbers, order[:n]))), order[n:]
    if not len(order):
        raise InputError(f"{source} has {len(numbers)} different rows: none is left to train on")
    parts = " and ".join(f"{len(rows):,} for {name}" for name, rows in cut.items())
    repeated = len(train) - len(numbers)
    more = f"; {repeated:,} rows repeat the text of another, and are where that is" if repeated else ""
    announce(f"held out of the {len(train):,} rows of {source}: {parts}{more}")
    return {**splits, **cut, "train": train.select(np.flatnonzero(np.isin(row_numbers, order)))}
