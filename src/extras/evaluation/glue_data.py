"""The tasks of GLUE (Wang et al. 2019): their columns, their measures, and their rows in the hub's format."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from src.data.malformed import DEFAULT
from src.data.sources import Source, check_columns, fingerprint, format_of, load_rows
from src.errors import InputError

CACHE = Path(".cache")


class Examples(NamedTuple):
    """The one or two texts of each row, and its label: a class or a score."""

    texts: list[list[str]]
    labels: list[float]


@dataclass(frozen=True)
class GlueTask:
    """A task.

    Args:
        name: on the hub.
        label: in the paper.
        texts: the columns of its one or two texts.
        metrics: the paper's.
        n_labels: classes; 1 for a score.
        splits: its development sets, by what tells them apart.
    """

    name: str
    label: str
    texts: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    n_labels: int = 2
    splits: dict[str, str] = field(default_factory=lambda: {"": "validation"})

    def scores(self, predictions: NDArray[np.float64], labels: NDArray[np.float64]) -> dict[str, float]:
        """Compute the task's measures, between 0 and 1 or -1 and 1.

        Predictions that are all the same correlate with nothing: 0, as scikit-learn has it for Matthews', where
        torchmetrics' measure is not 0 and its other two are no number.
        """
        from torchmetrics.functional import matthews_corrcoef, pearson_corrcoef, spearman_corrcoef
        from torchmetrics.functional.classification import binary_f1_score

        found, is_constant = {}, len(np.unique(predictions)) == 1
        predicted, expected = torch.from_numpy(predictions), torch.from_numpy(labels)
        for metric in self.metrics:
            if metric == "accuracy":
                value: Any = (predicted == expected).double().mean()
            elif metric == "F1":
                value = binary_f1_score(predicted.long(), expected.long())
            elif is_constant:
                value = 0.0
            elif metric == "Matthews":
                value = matthews_corrcoef(predicted.long(), expected.long(), task="binary")
            else:
                value = {"Pearson": pearson_corrcoef, "Spearman": spearman_corrcoef}[metric](predicted, expected)
            found[metric] = float(value)
        return found


PAIR = ("sentence1", "sentence2")
TASKS = {
    task.name: task
    for task in (
        GlueTask("cola", "CoLA", ("sentence",), ("Matthews",)),
        GlueTask("sst2", "SST-2", ("sentence",)),
        GlueTask("mrpc", "MRPC", PAIR, ("accuracy", "F1")),
        GlueTask("stsb", "STS-B", PAIR, ("Pearson", "Spearman"), n_labels=1),
        GlueTask("qqp", "QQP", ("question1", "question2"), ("accuracy", "F1")),
        GlueTask(
            "mnli",
            "MNLI",
            ("premise", "hypothesis"),
            n_labels=3,
            splits={"matched": "validation_matched", "mismatched": "validation_mismatched"},
        ),
        GlueTask("qnli", "QNLI", ("question", "sentence")),
        GlueTask("rte", "RTE", PAIR),
        GlueTask("wnli", "WNLI", PAIR),
    )
}


def _files(source: str, task: GlueTask, split: str) -> list[Path]:
    """List the files of a split, ``rte/train.parquet`` or ``rte/train-00000-of-00001.parquet``; none of the hub."""
    folder = Path(source) / task.name
    return sorted(
        path
        for path in folder.glob(f"{split}*")
        if path.name.removeprefix(split)[:1] in (".", "-") and format_of(path) not in (None, "text")
    )


def files_of_split(source: str, task: GlueTask, splits: Sequence[str]) -> str:
    """Find the files of splits, and hash what shapes them; refuse a folder in which a split is missing."""
    if not Path(source).is_dir():
        if Path(source).is_absolute() or source.startswith("."):
            raise InputError(f"there is no folder {source}: give one with the tasks of GLUE, or the hub's nyu-mll/glue")
        return source
    files = []
    for split in splits:
        found = _files(source, task, split)
        if not found:
            raise InputError(
                f"{Path(source) / task.name} has no split {split!r}: put {split}.parquet, .jsonl, .csv or .tsv there, "
                "or leave the task out by --tasks"
            )
        files += found
    return fingerprint({}, files)


def read_split(source: str, task: GlueTask, split: str) -> Examples:
    """Read the rows of a split."""
    columns = (*task.texts, "label")
    if Path(source).is_dir():
        files = _files(source, task, split)
        kind = format_of(files[0]) or ""
        # by a name that says no other split
        named = Source(f"{Path(source) / task.name}, {split}", {file: f"train/{file.suffix}" for file in files}, kind)
        rows = load_rows(named, CACHE, DEFAULT, columns, task.texts)["train"]
    else:
        parts = load_rows(Source(source, {}, "hub"), CACHE, DEFAULT, columns, task.texts, name=task.name)
        if split not in parts:
            raise InputError(f"{source} {task.name} has no split {split!r}: it has {', '.join(parts)}")
        rows = parts[split]
    where = f"the {split} split of {task.name} in {source}"
    check_columns(where, rows, columns)
    texts, labels = [[row[name] for name in task.texts] for row in rows], []
    for number, (row, label) in enumerate(zip(texts, rows["label"], strict=True), 1):
        read = _label(task, label)
        if read is None or not all(isinstance(text, str) for text in row):
            raise InputError(f"row {number:,} of {where} has no text, or a label that is none of its own: {label!r}")
        labels.append(read)
    if not labels:
        raise InputError(f"{where} has no row")
    return Examples(texts, labels)


def _label(task: GlueTask, label: Any) -> float | None:
    """Read a label, which a table has as text: a class by its number, or a score from 0 to 5."""
    try:
        number = float(label)
    except (TypeError, ValueError):
        return None
    is_one = 0 <= number <= 5 if task.n_labels == 1 else number in range(task.n_labels)
    return number if is_one else None
