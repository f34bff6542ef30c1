"""Two processes agree: what happens to one of them, both act on at the same step."""

import json
import os
import subprocess
import sys

import pytest

from src.checkpoint import read_checkpoint, read_header
from tests.distributed.jobs import ROOT


def run(root, *names):
    command = [sys.executable, "-m", "tests.reliability.ranks", str(root), *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return root, json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    return run(
        tmp_path_factory.mktemp("ranks"), "signal", "interrupt", "stop", "skip", "skip_gathered", "spike_in_parts"
    )


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return run(tmp_path_factory.mktemp("quick"), "shard_fsdp", "shard_tensor_parallel", "spike")


def lines(job, start):
    return [line for line in job["log"].splitlines() if line.startswith(start)]


@pytest.mark.slow
def test_a_signal_to_one_of_them_ends_both_after_the_same_step(jobs):
    root, found = jobs
    assert found["signal"]["statuses"] == [75, 0], found["signal"]["log"]
    (line,) = lines(found["signal"], "stopped: ")
    assert "asked to end at step 5" in line
    assert read_header(root / "signal/logs/gpt/version_0/checkpoints/last.ckpt")["global_step"] == 5


@pytest.mark.slow
def test_ctrl_c_which_all_of_them_get_ends_them_with_one_checkpoint(jobs):
    root, found = jobs[0], jobs[1]["interrupt"]
    assert found["statuses"] == [130, 0], found["log"]
    assert len(lines(found, "ending after this optimizer step")) == 1
    (line,) = lines(found, "stopped: ")
    assert "asked to end at step 5" in line
    assert "Traceback" not in found["log"]
    assert read_header(root / "interrupt/logs/gpt/version_0/checkpoints/last.ckpt")["global_step"] == 5


@pytest.mark.slow
def test_a_fault_of_one_of_them_stops_both_with_one_line(jobs):
    found = jobs[1]["stop"]
    assert found["statuses"] == [3, 0], found["log"]
    (line,) = lines(found, "error: ")
    assert "loss inf at step 5" in line
    assert "the loss itself, out of finite outputs" in line  # which the other one alone could see
    assert "of the training split on rank 1)" in line
    assert "Traceback" not in found["log"]


@pytest.mark.slow
def test_a_fault_of_one_of_them_is_skipped_by_both(jobs):
    root, found = jobs[0], jobs[1]["skip"]
    assert found["statuses"] == [0, 0], found["log"]
    assert len(lines(found, "warning: loss inf at step 5")) == 1
    assert read_header(root / "skip/logs/gpt/version_0/checkpoints/last.ckpt")["global_step"] == 12


@pytest.mark.slow
def test_what_is_skipped_where_parameters_stay_gathered_changes_nothing(jobs):
    """The search computes the batches once more, and parameters that it left gathered would show no gradients."""
    root, found = jobs[0], jobs[1]["skip_gathered"]
    assert found["statuses"] == [0, 0], found["log"]
    (line,) = lines(found, "warning: loss nan at step 5")
    assert "the first module whose output is not finite is blocks.0.attention_norm" in line
    weights = read_checkpoint(root / "skip_gathered/logs/gpt/version_0/checkpoints/last.ckpt")["state_dict"]
    assert all(weight.isfinite().all() for weight in weights.values())


@pytest.mark.parametrize("name", ["shard_fsdp", "shard_tensor_parallel"])
def test_a_bad_weight_in_one_shard_stops_both_with_one_line(quick, name):
    """One of them alone sees it, and must not leave the other one waiting in a forward pass."""
    found = quick[1][name]
    assert found["statuses"] == [3, 0], found["log"]
    (line,) = lines(found, "error: ")
    assert "at step 5" in line
    assert "the weights of blocks.0.attention.out.weight are not finite" in line
    assert "on rank 1)" in line
    assert "Traceback" not in found["log"]


def test_a_spike_is_looked_into_by_both(quick):
    found = quick[1]["spike"]
    assert found["statuses"] == [0, 0], found["log"]
    (line,) = lines(found, "warning: loss spike at step 31")
    assert "the weights are the cause" in line  # the loss of every row of one process is raised


@pytest.mark.slow
def test_a_spike_of_a_network_in_parts_names_no_rows(jobs):
    found = jobs[1]["spike_in_parts"]
    assert found["statuses"] == [0, 0], found["log"]
    (line,) = lines(found, "warning: loss spike at step 31")
    assert "(rows" not in line
