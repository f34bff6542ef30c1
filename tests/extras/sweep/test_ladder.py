"""Ladders: how a configuration is scaled, which law is fitted, and what is said of a gain."""

from pathlib import Path

import numpy as np
import pytest

from src.errors import InputError
from src.extras.sweep.configuration import layered, setting
from src.extras.sweep.definition import sweep_of
from src.extras.sweep.scaling_law import ScalingCurve, fit_law, gain_of, ladder_sentences

ROOT = Path(__file__).parents[3]
COMPUTE = np.array([1e12, 1e13, 1e14, 1e15])


def sweep(**content):
    return sweep_of({"base": "x", "parameters": {"model.config.activation": ["relu", "gelu"]}, **content}, "sweep.yaml")


@pytest.mark.parametrize("model", ["gpt", "bert", "transformer"])
def test_everything_is_scaled_by_the_number_of_layers(model):
    base = layered([ROOT / f"configs/small/{model}.yaml"])
    made = sweep(ladder={"sizes": [1, 2, 4]})
    assert [cell["ladder"] for cell in made.grid()] == [1, 1, 2, 2, 4, 4]
    configs = {size: made.config_of(base, {"ladder": size, "model.config.activation": "gelu"}, 0) for size in (1, 2, 4)}
    layers = ["n_encoder_layers", "n_decoder_layers"] if model == "transformer" else ["n_layers"]
    for size, config in configs.items():
        shape = {name: setting(config, f"model.config.{name}") for name in (*layers, "d_model", "n_heads", "d_ff")}
        assert shape == {**dict.fromkeys(layers, size), "d_model": 64 * size, "n_heads": 2 * size, "d_ff": 256 * size}
        assert setting(config, "trainer.max_steps") == {1: 38, 2: 300, 4: 2400}[size]
        assert setting(config, "model.schedule.warmup_steps") == {1: 4, 2: 30, 4: 240}[size]
        assert setting(config, "model.optimizer.lr") == pytest.approx(6e-3 / size)
    if model == "bert":
        assert setting(configs[4], "model.config.init_std") == pytest.approx(0.088 / 2**0.5, rel=1e-4)
    assert {**configs[2], "seed_everything": 0} == made.config_of(base, made.grid()[3], 0)


def test_a_depth_that_is_set_is_the_one_that_is_scaled():
    """A size is a number of layers, whatever the base has."""
    made = sweep(ladder=[2, 3, 4], set={"model.config.n_layers": 4, "model.config.d_ff": 512})
    configs = [made.config_of(layered([ROOT / "configs/small/gpt.yaml"]), cell, 0) for cell in made.grid()[::2]]
    shapes = [
        [setting(config, f"model.config.{name}") for name in ("n_layers", "d_model", "d_ff")] for config in configs
    ]
    assert shapes == [[2, 64, 256], [3, 96, 384], [4, 128, 512]]


def test_what_a_choice_has_of_its_own_is_scaled_too():
    gated = {"name": "swiglu", "value": "swiglu", "parameters": {"model.config.d_ff": [344]}}
    made = sweep(parameters={"model.config.activation": ["relu", gated]}, ladder=[1, 2, 3])
    base = layered([ROOT / "configs/small/gpt.yaml"])
    widths = [setting(made.config_of(base, cell, 0), "model.config.d_ff") for cell in made.grid()]
    assert widths == [256, 172, 512, 344, 768, 516]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"ladder": [1, 2]}, "three or more numbers of layers"),
        ({"ladder": [4, 2, 1]}, "ascending"),
        ({"ladder": {"depths": [1, 2, 3]}}, "it has sizes"),
        ({"ladder": [1, 2, 3], "mode": "max"}, "a ladder fits a loss"),
        ({"ladder": [1, 2, 3], "sampler": "random", "cells": 2}, "a ladder fits a loss"),
        ({"ladder": [1, 2, 3], "pruner": "median"}, "a ladder fits a loss"),
        ({"baseline": "gelo"}, r"baseline model\.config\.activation is 'gelo': choose one of relu, gelu"),
        ({"baseline": {"a": 1}}, "baseline names a, which is not varied"),
        ({"judged_by": "tokens"}, "it needs the target"),
        ({"judged_by": "time"}, "judged_by is 'time'"),
        ({"difference": 0.1}, "difference and pilot go together"),
        ({"target": "low"}, "target is 'low': it must be a number"),
    ],
)
def test_what_cannot_be_is_refused(content, message):
    with pytest.raises(InputError, match=message):
        sweep(**content)


def test_a_size_that_makes_no_whole_network_is_refused():
    shape = {"n_layers": 4, "d_model": 8, "n_heads": 2}
    base = {"model": {"config": shape, "optimizer": {"lr": 1e-3}}}
    made = sweep(ladder=[2, 3, 4])
    assert setting(made.config_of(base, made.grid()[0], 0), "model.config.n_heads") == 1
    with pytest.raises(InputError, match=r"model\.config\.n_heads is 2: times 0\.75, for this size of the ladder"):
        made.config_of(base, made.grid()[2], 0)
    with pytest.raises(InputError, match=r"a ladder scales model\.config\.n_layers, which the base does not give"):
        made.config_of({"model": {"config": {"d_model": 8}}}, made.grid()[0], 0)


def test_the_law_is_found_again():
    law = fit_law(COMPUTE, 1.5 + 2.0 * (COMPUTE / 1e12) ** -0.2)
    assert float(law.floor) == pytest.approx(1.5, abs=0.02)
    assert float(law.exponent) == pytest.approx(0.2, rel=0.02)
    assert float(law.loss(1e16)) == pytest.approx(1.5 + 2 * 1e4**-0.2, abs=3e-3)
    # without a floor, from three sizes
    law = fit_law(COMPUTE[:3], 4.0 * (COMPUTE[:3] / 1e12) ** -0.07)
    assert float(law.floor) == 0
    assert float(law.loss(1e15)) == pytest.approx(4.0 * 1e3**-0.07, rel=1e-3)


def curve(label, losses, n_seeds=5, noise=0.001, is_baseline=False, random=0):
    """A choice whose seeds have noise."""
    rng = np.random.default_rng([len(label), random])
    values = losses + noise * rng.normal(size=(n_seeds, len(losses)))
    return ScalingCurve(label, is_baseline, tuple(range(n_seeds)), COMPUTE[: len(losses)], values)


RELATIVE = COMPUTE / 1e12
BASELINE = curve("base", 4 * RELATIVE**-0.05, is_baseline=True)


@pytest.mark.parametrize(
    ("losses", "trend"),
    [
        (4 * RELATIVE**-0.06, "grows"),
        (3.5 * RELATIVE**-0.031, "vanishes"),  # the lines cross beyond the largest size
        (3.6 * RELATIVE**-0.05, "shrinks"),  # a tenth of a loss that falls
        (4 * RELATIVE**-0.05 - 0.2, "stays"),
    ],
)
def test_what_becomes_of_a_gain(losses, trend):
    noise = 0.02 if trend == "stays" else 0.001
    assert gain_of(curve("other", losses, noise=noise), BASELINE).trend == trend


def test_a_gain_that_is_not_there_is_seldom_told():
    """In one of twenty ladders, as a 95% interval has it."""
    losses = 4 * RELATIVE[:3] ** -0.05
    told = [gain_of(curve("other", losses, random=i), curve("base", losses, random=i)).trend for i in range(40)]
    assert sum(trend != "" for trend in told) <= 5  # more than that has a chance of 1.4%


def test_the_sentences_name_the_gain_beyond_and_the_error_of_the_prediction():
    base, grows = ladder_sentences([BASELINE, curve("other", 4 * RELATIVE**-0.06)])
    assert base.startswith("**base**: the baseline. From the smaller sizes 2.8")
    assert grows.startswith("**other**: its gain grows: 0.19")
    assert "predicted at ten times that" in grows
    for sentence in (base, grows):
        assert abs(float(sentence[sentence.rindex("(") + 1 : sentence.rindex("%")])) < 0.5
