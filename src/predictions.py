"""Tables of predictions: a row a text, as CSV or as JSON."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.atomic import atomic_file
from src.errors import InputError


def prediction_row(
    texts: Sequence[str], label_names: Sequence[str], probabilities: Iterable[float], true_label: str | None = None
) -> Mapping[str, str | float]:
    """Make the row of a table of predictions: the text or pair, its likeliest label, and the probability of each.

    Args:
        texts: one or two.
        label_names: in the order of the probabilities.
        probabilities: of the labels.
        true_label: where it is known.
    """
    given = dict(zip(("text", "second_text"), texts, strict=False))
    known = {} if true_label is None else {"true_label": true_label}
    by_name = {name: round(p, 6) for name, p in zip(label_names, probabilities, strict=True)}
    label = max(by_name, key=by_name.__getitem__)
    return {**given, **known, "label": label, **{f"probability_{name}": p for name, p in by_name.items()}}


def check_table(path: Path) -> None:
    """Refuse a file that :func:`write_table` could not write."""
    if path.suffix not in (".csv", ".jsonl") or not path.parent.is_dir():
        raise InputError(f"{path} must be a .csv or .jsonl file in a folder that exists")


def write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of the same columns atomically: as CSV or, to a ``.jsonl``, as JSON, an object a line."""
    with atomic_file(path) as file:
        if path.suffix == ".jsonl":
            file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n".encode() for row in rows)
            return
        text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        for i, row in enumerate(rows):
            if i == 0:
                writer.writerow(row)
            writer.writerow(row.values())
        text.detach()  # or it would close the file
