"""Two processes agree: what happens to one of them, both act on at the same step."""

import json
import os
import subprocess
import sys

import pytest

from src.checkpoint import read_header
from tests.distributed.jobs import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    root = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.reliability.ranks", str(root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return root, json.loads(done.stdout.splitlines()[-1])


def lines(job, start):
    return [line for line in job["log"].splitlines() if line.startswith(start)]


def test_a_signal_to_one_of_them_ends_both_after_the_same_step(jobs):
    root, found = jobs
    assert found["signal"]["statuses"] == [75, 0], found["signal"]["log"]
    (line,) = lines(found["signal"], "stopped: ")
    assert "asked to end at step 5" in line
    assert read_header(root / "signal/logs/gpt/version_0/checkpoints/last.ckpt")["global_step"] == 5


def test_a_fault_of_one_of_them_stops_both_with_one_line(jobs):
    found = jobs[1]["stop"]
    assert found["statuses"] == [3, 0], found["log"]
    (line,) = lines(found, "error: ")
    assert "loss inf at step 5" in line
    assert "the loss itself, out of finite outputs" in line  # which the other one alone could see
    assert "Traceback" not in found["log"]


def test_a_fault_of_one_of_them_is_skipped_by_both(jobs):
    root, found = jobs[0], jobs[1]["skip"]
    assert found["statuses"] == [0, 0], found["log"]
    assert len(lines(found, "warning: loss inf at step 5")) == 1
    assert read_header(root / "skip/logs/gpt/version_0/checkpoints/last.ckpt")["global_step"] == 12
