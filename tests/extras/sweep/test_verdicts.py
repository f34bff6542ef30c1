"""Verdicts: how often they are wrong, how often they find what is there, and what they say."""

import numpy as np
import pytest

from src.errors import InputError
from src.extras.sweep.definition import Sweep
from src.extras.sweep.results import RunResult, cost_of_target
from src.extras.sweep.verdicts import (
    LEVEL,
    detectable,
    holm,
    p_values,
    paired_deviation,
    seeds_needed,
    state_power,
    verdicts,
)
from tests.extras.sweep.pretend import finished

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
N_SWEEPS, N_CHOICES = 1000, 6  # the first choice is the baseline


def losses(rng, n_seeds, effect=0.0):
    """Losses of sweeps, (sweeps, choices, seeds), which seeds have in common in part; the second choice is better."""
    values = (
        2.5 + 0.02 * rng.normal(size=(N_SWEEPS, 1, n_seeds)) + 0.006 * rng.normal(size=(N_SWEEPS, N_CHOICES, n_seeds))
    )
    values[:, 1] -= effect
    return values


def is_better(values):
    """Which choices are called better than the baseline, (sweeps, choices - 1)."""
    differences = values[:, 1:] - values[:, :1]
    return (holm(p_values(differences)) < LEVEL) & (differences.mean(-1) < 0)


@pytest.mark.parametrize("n_seeds", [3, 5, 10])
def test_without_an_effect_at_most_one_sweep_in_twenty_calls_any_choice_better(n_seeds):
    assert is_better(losses(np.random.default_rng(n_seeds), n_seeds)).any(-1).mean() <= 0.05


@pytest.mark.parametrize("effect", [0.008, 0.015])
def test_the_stated_number_of_seeds_finds_the_stated_effect(effect):
    """Each sweep has a pilot of its own, of three seeds, which says how many seeds the effect needs."""
    rng = np.random.default_rng(0)
    found, pilots = [], losses(rng, 3)
    needed = np.array([seeds_needed(effect, paired_deviation(pilot)[1], N_CHOICES - 1) for pilot in pilots])
    for n_seeds in np.unique(needed):
        sweeps = losses(rng, n_seeds, effect)[: (needed == n_seeds).sum()]
        found += list(is_better(sweeps)[:, 0])
    assert len(found) == N_SWEEPS
    assert np.mean(found) >= 0.8


def test_the_power_that_is_planned_with_is_the_power_that_there_is():
    n_seeds = 5
    effect = detectable(n_seeds, 1) * 2**0.5 * 0.006
    values = losses(np.random.default_rng(1), n_seeds, effect)[:, :2]
    assert is_better(values).mean() == pytest.approx(0.8, abs=0.04)


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_the_deviation_of_a_pilot():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 1)) + rng.normal(size=(1, 50)) + 0.1 * rng.normal(size=(200, 50))
    estimate, bound = paired_deviation(values)
    assert estimate == pytest.approx(0.1 * 2**0.5, rel=0.03)
    assert estimate < bound < 1.03 * estimate


def sweep(**settings):
    return Sweep(**{"parameters": {"a": ["one", "two", "three", "four"]}, "base": ["x"], **settings})


def run(label, seed, value, **record):
    state = record.pop("state", "complete")
    record = {"seconds": 10.0 if label == "one" else 12.0, "memory_mib": 100, "curve": [(1, value)], **record}
    return RunResult(0, label, {"a": label}, seed, False, state, value, record)


def test_a_sentence_for_each_choice():
    noise = [0.0, 0.001, -0.001]
    runs = [run("one", seed, 1 + seed / 10) for seed in range(3)]
    runs += [run("two", seed, 0.9 + seed / 10 + noise[seed]) for seed in range(3)]
    runs += [run("three", seed, 1 + seed / 10 + 20 * noise[seed] + 0.01) for seed in range(3)]
    runs += [run("four", seed, None, state="diverged") for seed in range(3)]
    better, unclear, lost = verdicts(runs, sweep())
    assert better.startswith("**two**: better than one by 0.1000 (0.0975 to 0.1025; p = ")
    assert better.endswith("It takes 1.20 times the time and 1.00 times the memory.")
    assert unclear.startswith(
        "**three**: not told apart from one: +0.01 ± 0.0497 (p = 0.48); if that is the difference, "
    )
    assert "more seeds would tell" in unclear
    assert lost == "**four**: not compared: no run of it is complete."
    # the other way round, where the highest is the best
    assert any(line.startswith("**two**: worse than one by 0.1000") for line in verdicts(runs, sweep(mode="max")))
    # what did not complete might have been the worst
    some = verdicts([*runs, run("two", 3, None, state="diverged")], sweep())
    assert some[0] == "**two**: not compared: 1 of its 4 runs did not complete."
    # another baseline
    assert any(line.startswith("**one**: worse than two by 0.1000") for line in verdicts(runs, sweep(baseline="two")))
    assert verdicts(runs, sweep(baseline="four"))[0].startswith("No verdict: the baseline has no complete run")


def test_the_cost_of_a_target_is_interpolated_between_evaluations():
    record = {"curve": [(10, 3.0), (20, 2.0), (30, 2.2), (40, 1.0)], "tokens_at": [100, 200, 300, 400]}
    record["seconds_at"] = [1.0, 3.0, 4.0, 5.0]

    def cost(target, what, **settings):
        return cost_of_target(record, sweep(target=target, **settings), what)

    assert cost(2.5, "steps") == 15
    assert cost(2.5, "tokens") == 150
    assert cost(2.5, "seconds") == 2.0
    assert cost(1.6, "steps") == 35
    assert cost(3.5, "steps") == 10  # there already at the first evaluation
    assert cost(0.9, "steps") is None
    assert cost(2.1, "steps", mode="max") == 10
    with pytest.raises(InputError, match="before tokens were recorded"):
        cost_of_target({"curve": [(1, 1.0)]}, sweep(target=2.0), "tokens")


def test_the_power_is_stated_from_a_pilot(tmp_path):
    made = sweep(seeds=[100, 101, 102])
    rng = np.random.default_rng(0)
    finished(tmp_path / "pilot", made, lambda cell, seed: {"value": 2.5 + 0.006 * rng.normal()})
    planned = sweep(pilot=str(tmp_path / "pilot"), difference=0.01)
    text = state_power(planned)
    assert "(4 choices, 3 seeds)" in text
    assert "To tell a difference of 0.01 in each of 3 comparisons with a power of 80%" in text
    with pytest.raises(InputError, match="there is no pilot in"):
        state_power(sweep(pilot=str(tmp_path / "nothing"), difference=0.01))
    with pytest.raises(InputError, match="has val/loss and not val/perplexity"):
        state_power(sweep(pilot=str(tmp_path / "pilot"), difference=0.01, metric="val/perplexity"))
