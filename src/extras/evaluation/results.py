"""Scores: each part is kept when it is done, so that an interrupted evaluation goes on, and all are written down."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.atomic import write_text
from src.manifest import MANIFEST, hardware

PACKAGES = ("torch", "lm_eval", "mteb", "sacrebleu", "torchmetrics", "tokenizers", "datasets")  # that shape scores
RESULTS = "results.json"
RESAMPLES = 2000  # of the bootstrap


class Score(NamedTuple):
    """What a checkpoint reaches on a task, with the 95% interval, and what else is to be said of it."""

    task: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""


class Part(NamedTuple):
    """A part of an evaluation that is computed as a whole.

    Args:
        name: of its file.
        settings: plain values: all that shapes its scores beside the checkpoint.
        run: computes them; it may write into the folder of the results.
    """

    name: str
    settings: dict[str, Any]
    run: Callable[[Path], list[Score]]


Scored = list[tuple[Part, list[Score]]]


def all_scores(scored: Scored) -> list[Score]:
    """List the scores of all parts."""
    return [score for _, scores in scored for score in scores]


@dataclass(frozen=True)
class Evaluation:
    """What a suite does with a checkpoint; all that can be refused was refused when it was made.

    Args:
        step: of the checkpoint.
        parts: in their order.
        summarize: makes the scores that are reported of those of the parts.
        notes: on how it is done.
    """

    step: int | None
    parts: Sequence[Part]
    summarize: Callable[[Scored], list[Score]] = all_scores
    notes: Sequence[str] = field(default=())


def bootstrap(values: Sequence[float], samples: int = RESAMPLES) -> tuple[float, float, float]:
    """Give a mean with the percentiles 2.5 and 97.5 of the means of samples drawn with replacement."""
    rng, array = np.random.default_rng(0), np.array(values)
    means = [array[rng.integers(len(array), size=len(array))].mean() for _ in range(samples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(array.mean()), float(low), float(high)


def folder_of(checkpoint: Path, suite: str) -> Path:
    """Name the folder of results beside a checkpoint: ``best.evaluation/glue`` beside ``best.ckpt``."""
    return checkpoint.with_suffix(".evaluation") / suite.replace("/", "_")


def file_of(folder: Path, name: str, end: str) -> Path:
    """Name a file of results by what it is of, which may have slashes."""
    return folder / f"{name.replace('/', '_')}{end}"


def write_lines(path: Path, texts: Sequence[str]) -> None:
    """Write a text a line, without the line breaks in it."""
    write_text(path, "".join(text.replace("\r", " ").replace("\n", " ") + "\n" for text in texts))


def run_of(checkpoint: Path) -> Path | None:
    """Find the folder of the run that a checkpoint lies in, ``RUN/checkpoints/NAME.ckpt``."""
    folder = checkpoint.resolve().parent
    return folder.parent if folder.name == "checkpoints" and (folder.parent / MANIFEST).is_file() else None


def run_parts(evaluation: Evaluation, checkpoint: Path, folder: Path) -> Scored:
    """Compute the scores of each part, but for those that an earlier evaluation of this checkpoint has left."""
    with checkpoint.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    scored: Scored = []
    n_kept = 0
    for part in evaluation.parts:
        path = file_of(parts, part.name, ".json")
        made_of = json.loads(json.dumps({"checkpoint": checksum, **part.settings}))
        scores = _kept(path, made_of)
        if scores is None:
            if path.is_file():
                print(f"{path} is of another checkpoint or other settings: computed anew")
            scores = part.run(folder)
            content = {"made_of": made_of, "scores": [score._asdict() for score in scores]}
            write_text(path, json.dumps(content, indent=1) + "\n")
        else:
            n_kept += 1
        scored.append((part, scores))
    if n_kept:
        print(f"{n_kept:,} of {len(scored):,} parts are there from an earlier evaluation, in {parts}")
    return scored


def _kept(path: Path, made_of: dict[str, Any]) -> list[Score] | None:
    """Read the scores of a part that was done before, of the very same."""
    try:
        content = json.loads(path.read_bytes())
        return [Score(**score) for score in content["scores"]] if content["made_of"] == made_of else None
    except (OSError, ValueError, KeyError, TypeError):  # none, or one of another version
        return None


def write_results(
    folder: Path, suite: str, checkpoint: Path, evaluation: Evaluation, scored: Scored, scores: list[Score]
) -> None:
    """Write scores as ``results.json``, with all that they were made with, and as a table, ``results.md``."""
    record = {
        "suite": suite,
        "checkpoint": str(checkpoint),
        "step": evaluation.step,
        "scores": [score._asdict() for score in scores],
        "notes": list(evaluation.notes),
        "parts": [
            {"settings": part.settings, "scores": [score._asdict() for score in found]} for part, found in scored
        ],
        "packages": _versions(),
        "hardware": hardware(),
    }
    write_text(folder / RESULTS, json.dumps(record, indent=1) + "\n")
    at = "" if evaluation.step is None else f", step {evaluation.step:,}"
    rows = ["| task | metric | value | 95% interval | |", "| --- | --- | ---: | --- | --- |"]
    rows += [f"| {' | '.join(cells(score))} |" for score in scores]
    notes = "".join(f"\n{note}\n" for note in evaluation.notes)
    write_text(folder / "results.md", f"# {suite}: {checkpoint}{at}\n\n" + "\n".join(rows) + f"\n{notes}")


def cells(score: Score) -> list[str]:
    """Format a score as the cells of a table: task, metric, value, interval, note."""
    interval = "" if score.low is None or score.high is None else f"[{score.low:.4f}, {score.high:.4f}]"
    return [score.task, score.metric, f"{score.value:.4f}", interval, score.note]


def log_scores(writer: Any, suite: str, scores: list[Score], step: int) -> None:
    """Log scores to TensorBoard."""
    for score in scores:
        writer.add_scalar(tag(suite, score), score.value, step)


def tag(suite: str, score: Score) -> str:
    """Name a score where it is logged: ``SUITE/TASK/METRIC``; GLUE's mean, of no metric, ``glue/mean``."""
    return "/".join(filter(None, (suite, score.task, score.metric))).replace(" ", "_")


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
