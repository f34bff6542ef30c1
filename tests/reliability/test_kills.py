"""SIGKILL at random moments; the long ones print the figures that stand in docs/reliability.md."""

import os
import subprocess
import sys

import pytest

from tests.distributed.jobs import ROOT

FSDP = ["--strategy", "fsdp", "--async-save"]


def kill(*options: str) -> str:
    command = [sys.executable, "-m", "tests.reliability.kills", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def test_two_kills():
    assert "every run ended as the uninterrupted one" in kill("--kills", "2", "--kind", "transformer", "--steps", "40")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "kills"), [("gpt", "50"), ("bert", "10"), ("transformer", "10")])
def test_many_kills(kind, kills):
    print(kill("--kills", kills, "--kind", kind))


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], FSDP, [*FSDP, "--sharded"]], ids=["ddp", "fsdp", "shards"])
def test_kills_of_two_processes(more):
    print(kill("--kills", "10", "--processes", "2", *more))


@pytest.mark.slow
def test_an_hour_of_training_is_flat():
    command = [sys.executable, "-m", "tests.reliability.soak", "--minutes", "60"]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
