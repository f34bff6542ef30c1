"""What a sweep file means: its cells, and what is refused."""

import math
import re
from pathlib import Path

import pytest
import yaml

from src.errors import InputError
from src.extras.sweep.axes import Range
from src.extras.sweep.definition import sweep_of

ROOT = Path(__file__).parents[3]
OPTIMIZERS = [
    {"name": "sgd", "value": {"class_path": "SGD"}, "parameters": {"model.optimizer.lr": [1, 2]}},
    {"name": "adamw", "value": {"class_path": "AdamW"}, "parameters": {"model.optimizer.lr": [0.1]}},
]


def sweep(**content):
    return sweep_of({"base": "base.yaml", **content}, "sweep.yaml")


def test_a_grid_has_each_combination_once_and_a_choice_its_own_parameters():
    made = sweep(parameters={"model.optimizer": OPTIMIZERS, "model.config.norm": ["pre", "post"]})
    settings = [made.settings(cell) for cell in made.grid()]
    sgd, adamw = {"class_path": "SGD"}, {"class_path": "AdamW"}
    expected = [(sgd, 1), (sgd, 2), (adamw, 0.1)]
    assert settings == [
        {"model.optimizer": optimizer, "model.optimizer.lr": lr, "model.config.norm": norm}
        for optimizer, lr in expected
        for norm in ("pre", "post")
    ]
    assert len({made.group(cell) for cell in made.grid()}) == 4


def test_what_a_choice_has_of_its_own_lies_over_what_all_have():
    gated = {"name": "swiglu", "value": "swiglu", "parameters": {"d_ff": [341]}}
    made = sweep(set={"d_ff": 512}, parameters={"activation": ["relu", gated]})
    assert [made.settings(cell)["d_ff"] for cell in made.grid()] == [512, 341]


def test_the_points_of_a_range():
    assert Range(1e-4, 1e-1, log=True, points=4).grid() == [1e-4, 1e-3, 1e-2, 1e-1]
    assert Range(0.0, 1.0, points=3).grid() == [0.0, 0.5, 1.0]
    assert Range(1, 8, log=True, points=4).grid() == [1, 2, 4, 8]


def test_probes_show_every_value():
    made = sweep(parameters={"model.optimizer": OPTIMIZERS, "lr": {"low": 1, "high": 9, "points": 5}, "n": [1, 2]})
    probes = made.probes()
    assert {probe["lr"] for probe in probes} == {1, 9}
    assert {probe["n"] for probe in probes} == {1, 2}
    assert {probe.get("sgd: model.optimizer.lr") for probe in probes} == {1, 2, None}
    assert len(probes) < len(made.grid())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "the grid is empty"),
        ({"parameters": {}}, "the grid is empty"),
        ({"parameters": {"a": []}}, "the grid is empty: a has no values"),
        ({"parameters": {"a": [1]}, "seeds": []}, "the grid is empty: there are no seeds"),
        ({"parameters": {"a": [1, 1]}}, "a has the value 1 twice"),
        ({"parameters": {"a": 1}}, "a is 1: it must be a list of values, or a range"),
        ({"parameters": {"a": {"low": 1, "high": 2}}}, "a is a range without points"),
        ({"parameters": {"a": {"low": 2, "high": 1, "points": 2}}}, "a is no range"),
        ({"parameters": {"a": {"low": 0, "high": 1, "log": True, "points": 2}}}, "a is no range"),
        ({"parameters": {"a": {"low": math.nan, "high": 1, "points": 2}}}, "a is no range"),
        ({"parameters": {"a": {"low": "x", "high": 1, "points": 2}}}, "a is no range"),
        ({"parameters": {"a": {"low": 1}}}, "a is no range"),
        ({"parameters": {"a": {"low": 1, "high": 2}}, "sampler": "tpe"}, "needs how many"),
        ({"parameters": {"a": [1]}, "sampler": "best"}, "sampler is 'best': choose one of grid, random, tpe"),
        ({"parameters": {"a": [1]}, "mode": "low"}, "mode is 'low'"),
        ({"parameters": {"a": [1]}, "pruner": "x"}, "pruner is 'x'"),
        ({"parameters": {"a": [1]}, "seeds": [1, 1]}, r"seeds is \[1, 1\]"),
        ({"parameters": {"a": [1]}, "seeds": [1.5]}, r"seeds is \[1\.5\]"),
        ({"parameters": {"a": [1]}, "seeds": [1], "tuning_seeds": [1]}, "seed 1 is in seeds and in tuning_seeds"),
        ({"parameters": {"a": [1]}, "set": {"a": 2}}, "a is both varied and set"),
        ({"parameters": {"seed_everything": [1, 2]}}, "the seeds are given by seeds"),
        ({"parameters": {"a": [1]}, "sead": [1]}, "unknown key 'sead' in sweep.yaml; did you mean 'seeds'"),
        ({"parameters": {"a": [1]}, "base": None}, "names no base configuration"),
    ],
)
def test_what_cannot_be_is_refused(content, message):
    with pytest.raises(InputError, match=message):
        sweep(**content)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/extras/sweep").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_sweeps_here_run_every_model_in_a_budget(path):
    """What they say of themselves: the bases exist, and the runs are few enough for a laptop."""
    made = sweep_of(yaml.safe_load(path.read_text()), path.name)
    for base in (*made.base, *re.findall(r"configs/small/\w+\.yaml", path.read_text())):
        assert (ROOT / base).is_file()
    assert len(made.seeds) >= 3
    n_groups = len({made.group(cell) for cell in made.grid()})
    n_runs = made.n_cells() * len(made.tuning_seeds or made.seeds) + n_groups * len(made.seeds) * bool(
        made.tuning_seeds
    )
    eights = made.set.get("data.batch_size", 8) / 8  # of the rows of a step
    assert n_runs * made.set["trainer.max_steps"] * eights <= 20_000
