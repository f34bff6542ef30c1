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

from src.errors import InputError
from src.extras.sweep.axes import Parameters
from src.extras.sweep.definition import Sweep
from src.extras.sweep.queue import current_trials, run_of

CONFIDENCE = 0.95


@dataclass(frozen=True)
class RunResult:
    """A run that ended.

    Args:
        state: ``complete``, ``pruned``, ``diverged``, ``failed``, or ``unreached`` of a target.
        value: of a complete run the metric at its last validation, or the cost of its target.
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

    def differences(self, other: "CellResult") -> list[float]:
        """List the differences to another cell, by the seeds that both have."""
        theirs = {run.seed: run.value for run in other.runs}
        return [run.value - theirs[run.seed] for run in self.runs if run.seed in theirs]  # type: ignore[operator]

    def difference(self, other: "CellResult") -> Estimate | None:
        """Compare with another cell over the seeds that both have, which have the same data and weights in both."""
        differences = self.differences(other)
        return estimate(differences) if differences else None


def estimate(values: Sequence[float]) -> Estimate:
    """Estimate a mean, with the standard deviation of the values (n - 1) and the mean's interval."""
    mean, n = statistics.fmean(values), len(values)
    if n < 2:
        return Estimate(mean, None, None)
    deviation = statistics.stdev(values)
    return Estimate(mean, deviation, float(student.ppf((1 + CONFIDENCE) / 2, n - 1)) * deviation / n**0.5)


def cost_of_target(record: dict[str, Any], sweep: Sweep, cost: str) -> float | None:
    """Interpolate the ``steps``, ``tokens`` or ``seconds`` at which a run's metric first reached the target.

    Linear between two evaluations; where the first one is there already, it is that one's. None where none is.
    """
    assert sweep.target is not None
    costs = [step for step, _ in record["curve"]] if cost == "steps" else record.get(f"{cost}_at")
    if costs is None:
        raise InputError(f"the runs of this study were made before {cost} were recorded: judge them by steps")
    sign = 1 if sweep.mode == "min" else -1
    before: tuple[float, float] | None = None
    for here, (_, value) in zip(costs, record["curve"], strict=True):
        if sign * value <= sign * sweep.target:
            if before is None:
                return here
            then, was = before
            return then + (here - then) * (was - sweep.target) / (was - value)
        before = here, value
    return None


def _judged(state: str, value: float | None, record: dict[str, Any], sweep: Sweep) -> tuple[str, float | None]:
    """Return the state of a run, and what it is judged by."""
    if value is None or sweep.judged_by == "metric":
        return state, value
    cost = cost_of_target(record, sweep, sweep.judged_by)
    record["reason"] = "" if cost is not None else f"{sweep.metric} {value:.4f} at the end: {sweep.target} not reached"
    return ("unreached" if cost is None else state), cost


def runs_of(study: optuna.Study, sweep: Sweep) -> list[RunResult]:
    """List the runs that ended, by number. Those whose process died are no results."""
    runs = []
    for trial in current_trials(study.get_trials(deepcopy=False)).values():
        if trial.state.is_finished():
            run, record = run_of(trial), dict(trial.user_attrs)
            value = trial.value if trial.state == TrialState.COMPLETE else None
            runs.append(
                RunResult(
                    trial.number,
                    sweep.label(trial.params),
                    dict(trial.params),
                    run.seed,
                    run.is_tuning,
                    *_judged(record["state"], value, record, sweep),
                    record,
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


def shown(value: float) -> str:
    """Write a number as tables have it."""
    return f"{value:,.4f}" if abs(value) < 100 else f"{value:,.0f}"
