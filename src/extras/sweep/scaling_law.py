"""What a ladder says: the loss of each choice by compute, and whether its gain over the baseline lasts.

The law is L(C) = E + A C^-a (Kaplan et al. 2020; with the floor E, Henighan et al. 2020), in compute C = 6 N D: the
parameters times the tokens that they are trained on. The floor is fitted from four sizes on, and else 0. Seeds are
resampled together for all choices and sizes, as one seed has the same data in all.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.stats import t as student

from src.extras.sweep.definition import Sweep
from src.extras.sweep.results import RunResult, shown

EXPONENTS = (0.002, 2.0)  # the lowest and the highest
BOOTSTRAPS = 500
BEYOND = 10  # times the largest compute: where a gain is predicted
SIZES_FOR_FLOOR = 4

Interval = tuple[float, float]


@dataclass(frozen=True)
class Law:
    """L(C) = floor + factor (C / unit)^-exponent; each of a shape of its own, (...)."""

    floor: np.ndarray
    factor: np.ndarray
    exponent: np.ndarray
    unit: float

    def loss(self, compute: float | np.ndarray) -> np.ndarray:
        """Predict the loss, (...) for one compute."""
        return self.floor + self.factor * (compute / self.unit) ** -self.exponent


def fit_law(compute: np.ndarray, losses: np.ndarray) -> Law:
    """Fit a law by least squares, (sizes,) and (..., sizes).

    Given an exponent, the law is a straight line. So exponents are tried on a grid that becomes finer around the best.
    """
    unit = float(np.exp(np.log(compute).mean()))
    low, high = (np.full(losses.shape[:-1], end) for end in EXPONENTS)
    for _ in range(3):
        exponents = np.geomspace(low, high, 40, axis=-1)  # (..., exponents)
        floor, factor, errors = _lines((compute / unit) ** -exponents[..., None], losses[..., None, :])
        best = errors.argmin(-1)[..., None]
        low, high = (np.take_along_axis(exponents, np.clip(best + side, 0, 39), -1)[..., 0] for side in (-1, 1))
    chosen = [np.take_along_axis(values, best, -1)[..., 0] for values in (floor, factor, exponents)]
    return Law(chosen[0], chosen[1], chosen[2], unit)


def _lines(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit y = floor + factor x over the last axis, neither below 0; return them with the sum of squared errors."""
    factor = np.maximum((x * y).sum(-1) / (x * x).sum(-1), 0.0)
    floor = np.zeros_like(factor)
    if x.shape[-1] >= SIZES_FOR_FLOOR:
        centred = x - x.mean(-1, keepdims=True)
        slope = np.maximum((centred * y).sum(-1) / (centred * centred).sum(-1), 0.0)
        intercept = y.mean(-1) - slope * x.mean(-1)
        floor, factor = np.where(intercept > 0, intercept, 0.0), np.where(intercept > 0, slope, factor)
    return floor, factor, ((floor[..., None] + factor[..., None] * x - y) ** 2).sum(-1)


@dataclass(frozen=True)
class ScalingCurve:
    """A choice over the sizes of a ladder.

    Args:
        seeds: that are complete at every size.
        compute: (sizes,), in FLOP.
        values: the metric, (seeds, sizes).
    """

    label: str
    is_baseline: bool
    seeds: tuple[int, ...]
    compute: np.ndarray
    values: np.ndarray

    @cached_property
    def law(self) -> Law:
        """Its law, by the means over its seeds."""
        return fit_law(self.compute, self.values.mean(0))

    def resampled(self, draws: np.ndarray) -> np.ndarray:
        """Average over drawn seeds, (draws, seeds) to (draws, sizes)."""
        return self.values[draws].mean(1)

    def predicted_largest(self) -> float:
        """Predict the loss at the largest size from those at the smaller ones."""
        return float(fit_law(self.compute[:-1], self.values.mean(0)[:-1]).loss(self.compute[-1]))


@dataclass(frozen=True)
class Gain:
    """By how much a choice is below the baseline, by their laws at equal compute, with 95% intervals.

    Args:
        here: at the largest compute.
        beyond: at ten times that.
        change: from the one to the other.
    """

    here: float
    here_interval: Interval
    beyond: float
    beyond_interval: Interval
    change_interval: Interval

    @property
    def trend(self) -> str:
        """What becomes of it: ``grows``, ``stays``, ``shrinks`` or ``vanishes``; nothing where there is none."""
        (low, high), sign = self.here_interval, np.sign(self.here)
        if low <= 0 <= high:
            return ""
        slowest, fastest = sorted(sign * end for end in self.change_interval)
        if slowest > 0:
            return "grows"
        if fastest >= 0:
            return "stays"
        return "vanishes" if min(sign * end for end in self.beyond_interval) <= 0 else "shrinks"


def gain_of(curve: ScalingCurve, baseline: ScalingCurve, seed: int = 0) -> Gain:
    """Compare the laws of two choices of the same seeds."""
    largest = float(max(curve.compute[-1], baseline.compute[-1]))
    n_seeds = len(curve.seeds)
    draws = np.random.default_rng(seed).integers(n_seeds, size=(BOOTSTRAPS, n_seeds))
    draws = np.vstack([np.arange(n_seeds), draws])  # the first are all seeds: the estimate itself
    laws = [fit_law(one.compute, one.resampled(draws)) for one in (baseline, curve)]
    here, beyond = (laws[0].loss(compute) - laws[1].loss(compute) for compute in (largest, BEYOND * largest))
    intervals = [_interval(values, n_seeds) for values in (here, beyond, beyond - here)]
    return Gain(float(here[0]), intervals[0], float(beyond[0]), intervals[1], intervals[2])


def _interval(values: np.ndarray, n_seeds: int) -> Interval:
    """Make the interval of an estimate, the first value, from those of a bootstrap, the others.

    Their quantiles are too narrow with a few seeds: they leave out that the spread itself is estimated, as a standard
    error with Student's t does not.
    """
    error = values[1:].std() * (n_seeds / (n_seeds - 1)) ** 0.5
    half_width = float(student.ppf(0.975, n_seeds - 1) * error)
    return float(values[0]) - half_width, float(values[0]) + half_width


def scaling_curves(runs: Sequence[RunResult], sweep: Sweep) -> tuple[list[ScalingCurve], list[str]]:
    """Gather each choice over all sizes, the baseline first, with the seeds that are complete at every size.

    Returns:
        The choices, and the labels of those that have no such seed.
    """
    assert sweep.ladder is not None
    found: dict[str, dict[tuple[int, int], RunResult]] = defaultdict(dict)
    is_baseline: dict[str, bool] = {}
    for run in runs:
        label = sweep.choice_label(run.parameters)
        is_baseline.setdefault(label, sweep.is_baseline(run.parameters) and True not in is_baseline.values())
        found[label]  # also one that is never complete
        if run.value is not None:
            found[label][sweep.size(run.parameters), run.seed] = run
    curves, without = [], []
    for label in sorted(found, key=lambda label: not is_baseline[label]):
        complete = found[label]
        seeds = tuple(seed for seed in sweep.seeds if all((size, seed) in complete for size in sweep.ladder.sizes))
        if not seeds:
            without.append(label)
            continue
        rows = [[complete[size, seed] for size in sweep.ladder.sizes] for seed in seeds]
        values = np.array([[run.value for run in row] for row in rows])
        compute = np.array([6.0 * run.record["n_parameters"] * run.record["tokens"] for run in rows[0]])
        curves.append(ScalingCurve(label, is_baseline[label], seeds, compute, values))
    return curves, without


def ladder_sentences(curves: Sequence[ScalingCurve]) -> list[str]:
    """Write a sentence for each choice: its gain, what becomes of it, and how well the largest size was predicted."""
    baseline = next((curve for curve in curves if curve.is_baseline), None)
    sentences = []
    for curve in curves:
        predicted, measured = curve.predicted_largest(), float(curve.values[:, -1].mean())
        gain = "the baseline is not complete at every size." if baseline is None else "the baseline."
        if baseline is not None and curve is not baseline:
            gain = _gain_sentence(curve, baseline)
        sentences.append(
            f"**{curve.label}**: {gain} From the smaller sizes {predicted:.4f} is predicted at the largest, which has "
            f"{measured:.4f} ({predicted / measured - 1:+.2%})."
        )
    return sentences


def _gain_sentence(curve: ScalingCurve, baseline: ScalingCurve) -> str:
    seeds = tuple(seed for seed in baseline.seeds if seed in curve.seeds)
    if len(seeds) < 2:
        return "its gain is not judged: two seeds at every size are the least."
    gain = gain_of(_with_seeds(curve, seeds), _with_seeds(baseline, seeds))
    what, sign = ("gain", 1) if gain.here >= 0 else ("deficit", -1)
    here = _with_interval(sign, gain.here, gain.here_interval)
    beyond = _with_interval(sign, gain.beyond, gain.beyond_interval)
    if not gain.trend:
        return f"no gain over {baseline.label} is told at the largest compute, {here}; at ten times that {beyond}."
    trend = f"its {what} {gain.trend}" if gain.trend != "stays" else f"its {what} stays, as far as can be told"
    return f"{trend}: {here} at the largest compute beside {baseline.label}, {beyond} predicted at ten times that."


def _with_seeds(curve: ScalingCurve, seeds: tuple[int, ...]) -> ScalingCurve:
    return replace(curve, seeds=seeds, values=curve.values[[curve.seeds.index(seed) for seed in seeds]])


def _with_interval(sign: int, value: float, interval: Interval) -> str:
    low, high = sorted(sign * end for end in interval)
    return f"{shown(sign * value)} ({shown(low)} to {shown(high)})"
