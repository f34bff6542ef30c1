"""Rows of columns out of a file or the hub, as splits of HuggingFace `datasets`."""

from pathlib import Path
from typing import Any

import numpy as np

from src.data.corpora import FORMATS, Splits, load_dataset
from src.data.malformed import Malformed, readable
from src.errors import InputError
from src.files import check_file


def check_fractions(validation_fraction: float, test_fraction: float) -> None:
    """Refuse shares for validation and test that leave nothing to train on.

    Raises:
        InputError: naming both.
    """
    shares = validation_fraction, test_fraction
    if min(shares) < 0 or sum(shares) >= 1:
        raise InputError(
            f"validation_fraction {shares[0]} and test_fraction {shares[1]} must be at least 0 and leave "
            "something to train on"
        )


def load_table(
    source: str, name: str | None, cache_dir: Path, text_columns: tuple[str, ...] = (), strict: bool = False
) -> Splits:
    """The splits of a .csv, .tsv, .json, .jsonl or .parquet file, or of a dataset on the hub, by its own names.

    Args:
        source: the file or the dataset.
        name: configuration of a hub dataset.
        cache_dir: where prepared data lie.
        text_columns: those that must be text.
        strict: whether a malformed row of a file is refused, instead of left out.

    Raises:
        InputError: it cannot be read, or has no columns; under ``strict`` also a malformed row.
    """
    path = Path(source)
    if not path.suffix and not path.exists():
        return load_dataset(source, source, cache_dir, name=name)
    check_file(path, is_text=False)
    kind = FORMATS.get(path.suffix.lower(), "text")
    if kind == "text":
        raise InputError(f"{path} has no columns: give a .csv, .tsv, .json, .jsonl or .parquet file")
    if kind != "parquet":
        malformed = Malformed(source, strict)
        path = readable(path, kind, text_columns, cache_dir, malformed)
        malformed.announce()
        check_file(path, is_text=True)
    extra = {"sep": "\t"} if path.suffix == ".tsv" else {}
    return load_dataset(source, kind, cache_dir, data_files=str(path), **extra)


def cut_rows(source: str, splits: Splits, validation_fraction: float, test_fraction: float) -> dict[str, Any]:
    """Cut the splits that are missing out of the training rows, always the same ones whatever the seed of a run.

    Raises:
        InputError: there is no training split, or none of its rows is left.
    """
    if "train" not in splits:
        raise InputError(f"{source} has no split 'train'")
    train = splits["train"]
    order = np.random.default_rng(0).permutation(len(train))  # not the run's seed: runs must compare
    for name, share in {"validation": validation_fraction, "test": test_fraction}.items():
        if name not in splits and share:
            n = max(1, round(len(train) * share))
            splits[name], order = train.select(np.sort(order[:n])), order[n:]
    if not len(order):
        raise InputError(f"{source} has {len(train)} rows: none is left to train on")
    return {**splits, "train": train.select(np.sort(order))}


def check_columns(source: str, rows: Any, columns: list[str]) -> None:
    """Refuse rows without one of some columns.

    Raises:
        InputError: naming it, and the columns there are.
    """
    for column in columns:
        if column not in rows.column_names:
            raise InputError(f"{source} has no column {column!r}: it has {', '.join(rows.column_names)}")
