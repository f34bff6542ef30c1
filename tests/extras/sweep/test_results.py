"""The report's statistics, against numpy and scipy."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from src.extras.sweep.results import CellResult, RunResult, cells_of, estimate, odd_ones

numbers = st.floats(-100, 100, allow_subnormal=False)


def run(label, seed, value, **record):
    state = "failed" if value is None else "complete"
    return RunResult(0, label, {"a": label}, seed, False, state, value, record)


@given(st.lists(numbers, min_size=2, max_size=9).filter(lambda values: np.std(values) > 1e-3))
def test_mean_deviation_and_interval(values):
    found = estimate(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert found.deviation == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, np.mean(values), scipy.stats.sem(values))
    assert found.mean - found.half_width == pytest.approx(low, rel=1e-9, abs=1e-9)
    assert found.mean + found.half_width == pytest.approx(high, rel=1e-9, abs=1e-9)


def test_one_seed_has_no_interval():
    assert estimate([2.0]) == (estimate([2.0]).__class__)(2.0, None, None)


@given(
    st.lists(st.tuples(numbers, numbers), min_size=2, max_size=9).filter(lambda p: np.std([a - b for a, b in p]) > 1e-3)
)
def test_the_paired_difference(pairs):
    one, other = (
        CellResult(name, {}, tuple(run(name, seed, pair[i]) for seed, pair in enumerate(pairs)), len(pairs))
        for i, name in enumerate("ab")
    )
    found = one.difference(other)
    interval = scipy.stats.ttest_rel(*zip(*pairs, strict=True)).confidence_interval(0.95)
    assert found.mean - found.half_width == pytest.approx(interval.low, rel=1e-6, abs=1e-9)
    assert found.mean + found.half_width == pytest.approx(interval.high, rel=1e-6, abs=1e-9)


def test_pairs_are_of_the_same_seed():
    one = CellResult("a", {}, (run("a", 0, 1.0), run("a", 2, 3.0)), 2)
    other = CellResult("b", {}, (run("b", 1, 50.0), run("b", 2, 1.0)), 2)
    assert one.difference(other).mean == 2.0


@pytest.mark.parametrize(("mode", "order"), [("min", ["low", "high", "lucky"]), ("max", ["high", "low", "lucky"])])
def test_a_cell_that_failed_with_some_seed_is_not_the_best(mode, order):
    runs = [run("high", 0, 2.0), run("high", 1, 2.0), run("low", 0, 1.0), run("low", 1, 1.0), run("none", 0, None)]
    runs += [run("lucky", 0, 0.0 if mode == "min" else 9.0), run("lucky", 1, None)]
    cells = cells_of(runs, mode)
    assert [cell.label for cell in cells] == order
    assert (len(cells[-1].runs), cells[-1].n_ended) == (1, 2)


def test_what_should_be_equal_and_is_not_is_found():
    runs = [run(label, seed, 0.0, batches=seed) for label in "abc" for seed in (0, 1)]
    assert odd_ones(runs, "batches") == []
    assert odd_ones([*runs[:-1], run("c", 1, 0.0, batches=7)], "batches") == ["c"]
