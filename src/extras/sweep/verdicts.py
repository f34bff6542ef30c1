"""What a sweep says in words of each choice, and how many seeds it takes to say it.

A choice is compared with the baseline by a paired t-test over the seeds, which have the same data in both. Of all
comparisons together at most one in twenty sweeps claims any that is not there: Holm's correction (Holm 1979).
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.stats import chi2, nct, ttest_1samp
from scipy.stats import t as student

from src.errors import InputError
from src.extras.sweep.definition import Sweep
from src.extras.sweep.results import CellResult, RunResult, cells_of, runs_of, shown
from src.extras.sweep.study import find_study, open_storage, sweep_of_study

LEVEL = 0.05  # of a family of comparisons
POWER = 0.8
CONFIDENCE = 0.8  # that the deviation is not above the one that is planned with (Browne 1995)
MOST_SEEDS = 100
COSTS = {"seconds": "time", "memory_mib": "memory"}


def p_values(differences: np.ndarray) -> np.ndarray:
    """Test whether mean differences are 0, two-sided: (..., n_seeds) to (...)."""
    with np.errstate(all="ignore"):
        p = np.asarray(ttest_1samp(differences, 0.0, axis=-1).pvalue)
    certain = np.where(differences.mean(-1) == 0, 1.0, 0.0)  # where no seed differs from the others
    return np.where(np.isfinite(p), p, certain)


def holm(p: np.ndarray) -> np.ndarray:
    """Correct p-values for their number: (..., n_comparisons) to the same shape."""
    n = p.shape[-1]
    order = np.argsort(p, axis=-1)
    corrected = np.maximum.accumulate(np.take_along_axis(p, order, -1) * (n - np.arange(n)), -1)
    result = np.empty_like(p)
    np.put_along_axis(result, order, np.minimum(corrected, 1.0), -1)
    return result


@cache
def detectable(n_seeds: int, n_comparisons: int) -> float:
    """Compute the difference, in standard deviations of a paired difference, that is told with a power of 80%.

    As the first of the comparisons, which Holm's correction holds to the level of Bonferroni's. The power is that of
    the t-test in one direction, by the noncentral t distribution.
    """
    critical = student.isf(LEVEL / n_comparisons / 2, n_seeds - 1)
    upper = 4 * (critical + 3) / n_seeds**0.5
    return float(brentq(lambda d: nct.sf(critical, n_seeds - 1, d * n_seeds**0.5) - POWER, 1e-6, upper))


def seeds_needed(difference: float, deviation: float, n_comparisons: int) -> int | None:
    """Count the seeds that tell a difference with a power of 80%; None for more than a hundred.

    Args:
        deviation: standard deviation of a paired difference.
    """
    for n_seeds in range(3, MOST_SEEDS + 1):
        if detectable(n_seeds, n_comparisons) * deviation <= difference:
            return n_seeds
    return None


def paired_deviation(values: np.ndarray) -> tuple[float, float]:
    """Estimate the standard deviation of a paired difference from a pilot, (choices, seeds).

    Pooled over the choices, as what is left of a two-way layout without the means of choices and seeds, with
    (choices - 1) (seeds - 1) degrees of freedom.

    Returns:
        The estimate, and the bound below which it is with a confidence of 80%.
    """
    left = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    freedom = (values.shape[0] - 1) * (values.shape[1] - 1)
    estimate = (2 * (left**2).sum() / freedom) ** 0.5
    return float(estimate), float(estimate * (freedom / chi2.ppf(1 - CONFIDENCE, freedom)) ** 0.5)


def state_power(sweep: Sweep) -> str:
    """Say how many seeds the difference that is worth knowing needs; nothing for a sweep without a pilot."""
    if sweep.pilot is None or sweep.difference is None:
        return ""
    folder = Path(sweep.pilot)
    study = find_study(open_storage(folder), folder.name) if (folder / "study.db").is_file() else None
    if study is None:
        raise InputError(f"there is no pilot in {folder}: name the folder of a study")
    pilot = sweep_of_study(study)
    if pilot.metric != sweep.metric:
        raise InputError(f"the pilot {folder} has {pilot.metric} and not {sweep.metric}: name another")
    runs = [run for run in runs_of(study, pilot) if not run.is_tuning]
    most = max((len(cell.runs) for cell in cells_of(runs, pilot.mode)), default=0)
    cells = [cell for cell in cells_of(runs, pilot.mode) if len(cell.runs) == most]
    if most < 2 or len(cells) < 2:
        raise InputError(f"the pilot {folder} has no two choices with two seeds that are complete: run more of it")
    values = np.array([[run.value for run in cell.runs] for cell in cells])
    deviation, bound = paired_deviation(values)
    n_comparisons, n_seeds = max(1, sweep.n_choices() - 1), len(sweep.seeds)
    needed = seeds_needed(sweep.difference, bound, n_comparisons)
    tells = f"{n_seeds} tell {shown(detectable(n_seeds, n_comparisons) * bound)}" if n_seeds > 2 else "too few for any"
    return (
        f"power: in the pilot {folder} ({len(cells)} choices, {most} seeds) paired differences of {sweep.metric} have "
        f"a standard deviation of {shown(deviation)}, with 80% confidence below {shown(bound)}. To tell a difference "
        f"of {sweep.difference:g} in each of {n_comparisons} comparisons with a power of {POWER:.0%}, at {LEVEL:.0%} "
        f"for all together, takes {needed or f'more than {MOST_SEEDS}'} seeds; this sweep has {n_seeds}: {tells}."
    )


def verdicts(runs: Sequence[RunResult], sweep: Sweep) -> list[str]:
    """Write a sentence for each cell: better or worse than the baseline, or not told apart, and at what cost."""
    cells = cells_of(runs, sweep.judged_mode)
    baseline = baseline_of(runs, cells, sweep)
    if baseline is None:
        return ["No verdict: the baseline has no complete run; name another by `baseline`."]
    others = [cell for cell in cells if cell is not baseline]
    ready = [cell for cell in others if _obstacle(cell, baseline) is None]
    differences = {cell.label: cell.differences(baseline) for cell in ready}
    p = np.array([p_values(np.array(values)) for values in differences.values()])
    corrected = dict(zip(differences, holm(p) if len(p) else p, strict=True))
    sentences = []
    for cell in others:
        obstacle = _obstacle(cell, baseline)
        text = obstacle or _comparison(cell, baseline, float(corrected[cell.label]), len(ready), sweep.judged_mode)
        sentences.append(f"**{cell.label}**: {text}")
    known = {cell.label for cell in cells}
    lost = dict.fromkeys(run.label for run in runs if run.label not in known)
    return sentences + [f"**{label}**: not compared: no run of it is {_done(sweep)}." for label in lost]


def baseline_of(runs: Sequence[RunResult], cells: Sequence[CellResult], sweep: Sweep) -> CellResult | None:
    """Find the cell that the others are compared with: of the baseline's cells, the first that was run."""
    found = [run.label for run in runs if sweep.baseline_group is None or sweep.is_baseline(run.parameters)]
    return next((cell for label in found[:1] for cell in cells if cell.label == label), None)


def _done(sweep: Sweep) -> str:
    return "complete" if sweep.judged_by == "metric" else f"complete and reaches {sweep.target:g}"


def _obstacle(cell: CellResult, baseline: CellResult) -> str | None:
    """Say why two cells cannot be compared: runs that are left out might have been the worst."""
    for one, name in ((cell, "its"), (baseline, "the baseline's")):
        if len(one.runs) < one.n_ended:
            return f"not compared: {one.n_ended - len(one.runs)} of {name} {one.n_ended} runs did not complete."
    if len(cell.differences(baseline)) < 2:
        return "not told apart: two seeds that both have are the least."
    return None


def _comparison(cell: CellResult, baseline: CellResult, p: float, n_comparisons: int, mode: str) -> str:
    difference = cell.difference(baseline)
    assert difference is not None
    assert difference.half_width is not None
    assert difference.deviation is not None
    mean, n_seeds = difference.mean, len(cell.differences(baseline))
    sign = 1 if mode == "min" else -1
    low, high = sorted(sign * (mean + side * difference.half_width) for side in (-1, 1))
    if p < LEVEL:
        word = "worse" if sign * mean > 0 else "better"
        low, high = (low, high) if word == "worse" else (-high, -low)
        said = f"{word} than {baseline.label} by {shown(abs(mean))} ({shown(low)} to {shown(high)}; p = {p:.2g})"
    else:
        said = f"not told apart from {baseline.label}: {mean:+.3g} ± {difference.half_width:.3g} (p = {p:.2g})"
        needed = seeds_needed(abs(mean), difference.deviation, n_comparisons)
        more = f"more than {MOST_SEEDS}" if needed is None else f"{max(1, needed - n_seeds)} more"
        said += f"; if that is the difference, {more} seeds would tell"
    costs = [(cell.mean_of(name), baseline.mean_of(name), what) for name, what in COSTS.items()]
    ratios = [f"{own / other:.2f} times the {what}" for own, other, what in costs if own and other]
    return said + (f". It takes {' and '.join(ratios)}." if ratios else ".")
