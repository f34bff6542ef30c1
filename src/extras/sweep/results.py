"""What came out of a sweep: its runs, and the statistics of its cells over seeds."""

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState
from scipy.stats import t as student

from src.extras.sweep.definition import Parameters, Sweep
from src.extras.sweep.queue import current_trials, run_of

CONFIDENCE = 0.95


@dataclass(frozen=True)
class RunResult:
    """A run that ended.

    Args:
        state: ``complete``, ``pruned``, ``diverged`` or ``failed``.
        value: the metric at its last validation, of a complete run.
        record: all else that was recorded.
    """

    number: int
    label: str
    parameters: Parameters
    seed: int
    is_tuning: bool
    state: str
    value: float | None
    record: dict[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, with the half width of its 95% interval by Student's t; None with one seed."""

    mean: float
    deviation: float | None
    half_width: float | None


@dataclass(frozen=True)
class CellResult:
    """A cell over its seeds."""

    label: str
    parameters: Parameters
    runs: tuple[RunResult, ...]  # the complete ones, by seed
    n_ended: int  # of all its runs

    @property
    def estimate(self) -> Estimate:
        return estimate([run.value for run in self.runs if run.value is not None])

    def mean_of(self, name: str) -> float | None:
        """Average something that was recorded, over the runs that have it."""
        found = [run.record[name] for run in self.runs if name in run.record]
        return statistics.fmean(found) if found else None

    def difference(self, other: "CellResult") -> Estimate | None:
        """Compare with another cell over the seeds that both have, which have the same data and weights in both."""
        theirs = {run.seed: run.value for run in other.runs}
        differences = [run.value - theirs[run.seed] for run in self.runs if run.seed in theirs]  # type: ignore[operator]
        return estimate(differences) if differences else None


def estimate(values: Sequence[float]) -> Estimate:
    """Estimate a mean, with the standard deviation of the values (n - 1) and the mean's interval."""
    mean, n = statistics.fmean(values), len(values)
    if n < 2:
        return Estimate(mean, None, None)
    deviation = statistics.stdev(values)
    return Estimate(mean, deviation, float(student.ppf((1 + CONFIDENCE) / 2, n - 1)) * deviation / n**0.5)


def runs_of(study: optuna.Study, sweep: Sweep) -> list[RunResult]:
    """List the runs that ended, by number. Those whose process died are no results."""
    runs = []
    for trial in current_trials(study.get_trials(deepcopy=False)).values():
        if trial.state.is_finished():
            run = run_of(trial)
            runs.append(
                RunResult(
                    trial.number,
                    sweep.label(trial.params),
                    dict(trial.params),
                    run.seed,
                    run.is_tuning,
                    trial.user_attrs["state"],
                    trial.value if trial.state == TrialState.COMPLETE else None,
                    dict(trial.user_attrs),
                )
            )
    return sorted(runs, key=lambda run: run.number)


def cells_of(runs: Sequence[RunResult], mode: str) -> list[CellResult]:
    """List the cells, the best first; those with fewer complete runs than others come last."""
    by_cell: dict[str, list[RunResult]] = defaultdict(list)
    for run in runs:
        by_cell[json.dumps(run.parameters, sort_keys=True)].append(run)
    cells = []
    for ended in by_cell.values():
        complete = tuple(sorted((run for run in ended if run.value is not None), key=lambda run: run.seed))
        if complete:
            cells.append(CellResult(ended[0].label, ended[0].parameters, complete, len(ended)))
    most = max((len(cell.runs) for cell in cells), default=0)
    sign = 1 if mode == "min" else -1
    return sorted(cells, key=lambda cell: (len(cell.runs) < most, sign * cell.estimate.mean))


def odd_ones(runs: Sequence[RunResult], what: str) -> list[str]:
    """List the cells that differ, with some seed, from most others in something that a seed should make equal."""
    odd: dict[str, None] = {}
    for seed in sorted({run.seed for run in runs}):
        found = {run.label: run.record[what] for run in runs if run.seed == seed and what in run.record}
        if found:
            usual = Counter(found.values()).most_common(1)[0][0]
            odd |= {label: None for label, value in found.items() if value != usual}
    return list(odd)
