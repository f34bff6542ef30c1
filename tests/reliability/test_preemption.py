"""A signal ends a run with a checkpoint and a status that says so; the same command goes on with it."""

import errno
import os
import signal
import stat
import subprocess
import sys
import time

import pytest
import torch
import yaml

from src.checkpoint import read_header
from tests.distributed.jobs import ROOT
from tests.reliability.runs import assert_same, config, figures, final


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    import src.cli

    root = tmp_path_factory.mktemp("whole")
    src.cli.main(["fit", "--config", str(config("gpt", root, checkpoint__every_n_train_steps=None))])
    return root / "logs/gpt/version_0"


def interrupted(tmp_path, place, step, name="SIGTERM"):
    """The command of a run that receives a signal once."""
    path = config("gpt", tmp_path, checkpoint__every_n_train_steps=None)
    settings = yaml.safe_load(path.read_text())
    probe = {"place": place, "step": step, "marker": str(tmp_path / "done"), "name": name}
    settings["trainer"]["callbacks"].append({"class_path": "tests.reliability.probes.Signal", "init_args": probe})
    path.write_text(yaml.safe_dump(settings))
    return ["fit", "--config", path, "--resume", "auto", "--allow_class_paths", "tests"]


@pytest.mark.parametrize(
    ("place", "step", "name"),
    [
        ("step", 0, "SIGTERM"),
        ("step", 3, "SIGTERM"),  # whose figures are due to be logged
        ("step", 4, "SIGTERM"),
        ("step", 5, "SIGUSR1"),  # a validation is due after the step that it comes in
        ("validation", 6, "SIGTERM"),  # with the averaged weights in the network
    ],
)
def test_the_run_ends_after_the_step_and_goes_on_as_if_nothing_had_been(run, tmp_path, whole, place, step, name):
    command = interrupted(tmp_path, place, step, name)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    status, out, err = run(*command)
    assert status == 75, err
    assert err.count("\n") == 1
    after = step + (place == "step")
    assert f"stopped: asked to end at step {after}: saved " in err
    assert "has no checkpoint to resume from: starting a new run" in out
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == handlers
    status, out, err = run(*command)
    assert status == 0, err
    assert f"last.ckpt, step {after}" in out
    resumed = tmp_path / "logs/gpt/version_0"
    assert sorted(path.name for path in resumed.parent.iterdir()) == ["version_0"]  # the run goes on in its folder
    assert_same(final(resumed), final(whole))
    assert figures(resumed) == figures(whole)
    assert {path.name for path in (resumed / "checkpoints").iterdir()} == {
        path.name for path in (whole / "checkpoints").iterdir()
    }


def test_a_run_that_is_being_trained_is_not_gone_on_with(run, tmp_path):
    path = config("gpt", tmp_path, trainer__max_steps=1_000_000, trainer__callbacks=None)
    command = ["fit", "--config", str(path), "--resume", "auto"]
    folder = tmp_path / "logs/gpt/version_0"
    first = subprocess.Popen([sys.executable, "-m", "src", *command], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        while not (folder / "checkpoints/last.ckpt").exists():
            assert first.poll() is None
            time.sleep(0.1)
        status, _, err = run(*command)
        assert status == 2
        assert err == f"error: another process is training {folder}: wait for it, or leave out --resume auto\n"
    finally:
        first.kill()
        first.wait()
    done = read_header(folder / "checkpoints/last.ckpt")["global_step"]
    status, _, err = run(*command, "--trainer.max_steps", done + 1)
    assert status == 0, err
    assert [path.name for path in folder.parent.iterdir()] == ["version_0"]
    assert not (folder / ".lock").exists()


def test_a_folder_that_cannot_be_locked_is_gone_on_with(run, tmp_path, monkeypatch):
    def without_locks(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", without_locks)
    command = ["fit", "--config", config("gpt", tmp_path), "--resume", "auto", "--trainer.max_steps"]
    assert [run(*command, steps)[0] for steps in (1, 2)] == [0, 0]


@pytest.mark.parametrize("limits", [{"max_steps": 2}, {"max_steps": -1, "max_epochs": 1}], ids=["steps", "epochs"])
def test_a_finished_run_is_finished_and_says_so(run, tmp_path, limits):
    path = config("gpt", tmp_path, **{f"trainer__{name}": value for name, value in limits.items()})
    command = ["fit", "--config", path, "--resume", "auto"]
    status, out, err = run(*command)
    assert status == 0, err
    assert "already" not in out
    last = tmp_path / "logs/gpt/version_0/checkpoints/last.ckpt"
    before, step = last.read_bytes(), torch.load(last)["global_step"]
    status, out, err = run(*command)
    assert status == 0, err
    assert last.read_bytes() == before
    assert f"already at step {step} of {step}: raise --trainer.{list(limits)[-1]} to train on\n" in out
    assert "Result" not in out


def test_slurm_puts_the_job_back_and_a_job_that_was_put_back_goes_on(run, tmp_path, whole, monkeypatch):
    """With the variables of `srun`, and a `scontrol` that writes down what it is told."""
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n')
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    slurm = {"NTASKS": 1, "NTASKS_PER_NODE": 1, "NNODES": 1, "JOB_ID": 7, "JOB_NAME": "train", "NODELIST": "localhost"}
    slurm |= {"LOCALID": 0, "PROCID": 0, "NODEID": 0}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    command = [word for word in interrupted(tmp_path, "step", 4, "SIGUSR1") if word not in ("--resume", "auto")]
    status, _, err = run(*command)
    assert status == 75, err
    assert "job 7 was put back into the queue" in err
    assert (tmp_path / "told").read_text() == "requeue 7\n"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr("sys.argv", ["src", "fit"])
    status, out, err = run(*command)
    assert status == 0, err
    assert "last.ckpt, step 5" in out
    assert_same(final(tmp_path / "logs/gpt/version_0"), final(whole))
