"""Frozen parameters: never changed, without optimizer state, the same by every strategy and after a resume."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from src.checkpoint import read_checkpoint
from tests.distributed.jobs import HALFWAY, STEPS, fit, losses, run_job, write_config

CONSTANT = ("--model.schedule", "Constant")  # whose rate does not depend on how long a run is to be
FREEZE = "--model.freeze=[token_embedding.*, blocks.0.*]"
FROZEN = re.compile(r"model\.(token_embedding|head|blocks\.0)\.")  # the head is tied to the embedding
STRATEGIES = {"ddp": 2, "fsdp": 2, "zero1": 2, "zero2": 2, "zero3": 2, "tensor_parallel": 1, "pipeline": 1}


def last(run: Path) -> dict:
    return read_checkpoint(run / "checkpoints/last.ckpt")


def test_what_is_frozen_keeps_its_bits_and_has_no_state(run, config, tmp_path):
    first = [run("fit", "--config", config, "--trainer.max_steps", n, FREEZE, "--experiment", f"f{n}") for n in (1, 6)]
    assert [status for status, *_ in first] == [0, 0], first[1][2]
    one, six = (last(tmp_path / f"logs/f{n}/version_0") for n in (1, 6))
    for name, weight in six["state_dict"].items():
        assert torch.equal(weight, one["state_dict"][name]) == bool(FROZEN.match(name)), name
    trained = [name for name in six["state_dict"] if not FROZEN.match(name)]
    assert len(six["optimizer_states"][0]["state"]) == len(trained) == len(six["trained"])
    sizes = [six["state_dict"][name].numel() for name in trained]
    assert f"{sum(sizes):,} of them trained" in " ".join(first[1][1].split())


def test_a_resumed_run_is_the_uninterrupted_one(run, config, tmp_path):
    assert run("fit", "--config", config, *CONSTANT, FREEZE)[0] == 0
    assert run("fit", "--config", config, *CONSTANT, FREEZE, "--experiment", "cut", "--trainer.max_steps", 6)[0] == 0
    cut = tmp_path / "logs/cut/version_0"
    status, _, err = run("fit", "--config", config, *CONSTANT, FREEZE, "--experiment", "cut", "--resume", "auto")
    assert status == 0, err
    whole, resumed = last(tmp_path / "logs/tiny/version_0"), last(cut)
    assert resumed["global_step"] == 12
    for name, weight in whole["state_dict"].items():
        assert torch.equal(weight, resumed["state_dict"][name]), name
    assert run("validate", "--ckpt_path", cut / "checkpoints/last.ckpt")[0] == 0


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ("blokcs.*", "'blokcs.*' matches no parameter: those of this network are token_embedding.*, "),
        ("*", "leaves no parameter to train"),
        ("[head.*, nothing]", "'nothing' matches no parameter"),
    ],
)
def test_what_cannot_be_frozen_is_refused_in_a_line(run, config, tmp_path, patterns, message):
    status, _, err = run("fit", "--config", config, f"--model.freeze={patterns}")
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not list((tmp_path / "logs").glob("*/version_*"))


@pytest.mark.parametrize(("before", "after"), [((), (FREEZE,)), ((FREEZE,), ("--model.freeze=blocks.0.*",))])
def test_going_on_with_other_parameters_is_refused_in_a_line(run, config, tmp_path, before, after):
    assert run("fit", "--config", config, *before, "--trainer.max_steps", 2)[0] == 0
    path = tmp_path / "logs/tiny/version_0/checkpoints/last.ckpt"
    status, _, err = run("fit", "--config", config, *after, "--ckpt_path", path)
    assert status == 2
    assert "trains not token_embedding.weight" in err or "trained not token_embedding.weight" in err
    assert "set model.freeze" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_each_strategy_freezes_as_one_process_does(tmp_path, name):
    """Of the first stage of a pipeline the positions alone are trained."""
    path = write_config("gpt", tmp_path)
    settings = yaml.safe_load(path.read_text())
    settings["trainer"]["callbacks"] = []
    path.write_text(yaml.safe_dump(settings))
    run_job(tmp_path / "alone", [fit(path, tmp_path / "alone", "gpt", 1, FREEZE)], processes=1)
    more = [FREEZE, "--config", f"configs/strategy/{name}.yaml", "--trainer.devices", "2"]
    whole = fit(path, tmp_path / name, "gpt", STRATEGIES[name], *more)
    halfway = tmp_path / name / "gpt/version_0/checkpoints" / f"{HALFWAY}.ckpt"
    run_job(tmp_path / "job", [whole, [*whole, "--ckpt_path", str(halfway)]])
    expected, spread, resumed = (
        losses(tmp_path / run, "train/loss")
        for run in ("alone/gpt/version_0", f"{name}/gpt/version_0", f"{name}/gpt/version_1")
    )
    assert len(expected) == STEPS
    assert spread == pytest.approx(expected, abs=1e-4)
    assert resumed == pytest.approx(expected[HALFWAY:], abs=1e-4)
