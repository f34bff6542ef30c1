"""A checkpoint is whole or not there: kills, full disks, damaged files."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import torch

from src.atomic import atomic_file, replace_folder
from src.checkpoint import check_shards, read_header, save_checkpoint
from src.cli.runs import newest_checkpoint
from src.distributed.saving import atomic_folder
from src.errors import InputError
from tests.distributed.jobs import ROOT
from tests.reliability.runs import assert_same, checkpoints, config, figures, final

# saves the same name again and again, and says how often
SAVER = """
import sys, torch
from pathlib import Path
from src.checkpoint import save_checkpoint
for n in range(10**6):
    save_checkpoint({"n": n, "weights": torch.full((400, 1000), float(n))}, Path(sys.argv[1]))
    print(n, flush=True)
"""


def test_a_kill_while_it_is_written_leaves_the_one_before(tmp_path):
    path, rng = tmp_path / "last.ckpt", random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVER, path], cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ}
        )
        process.stdout.readline()  # the first is there
        time.sleep(rng.random() * 0.1)
        process.kill()
        last = [int(line) for line in process.stdout.read().split() if line.isdigit()]
        process.wait()
        held = torch.load(path)
        assert torch.equal(held["weights"], torch.full((400, 1000), float(held["n"])))
        assert held["n"] >= max(last, default=0)  # what was reported as saved is there


def test_a_full_disk_ends_the_run_with_one_line_and_leaves_the_checkpoint_before(run, tmp_path, small_disk):
    constant = {"class_path": "Constant"}  # the same for 4 steps as for 12
    changes = {"trainer__default_root_dir": str(small_disk), "model__init_args__schedule": constant}
    path = config("gpt", tmp_path, checkpoint__save_top_k=1, **changes)
    assert run("fit", "--config", path, "--trainer.max_steps", 4)[0] == 0
    folder = small_disk / "gpt/version_0/checkpoints"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    filler = os.open(small_disk / "filler", os.O_CREAT | os.O_WRONLY)
    with suppress(OSError):
        while True:
            os.write(filler, b"x" * 1024)
    os.close(filler)
    status, _, err = run("fit", "--config", path, "--resume", "auto")
    assert status == 2
    assert "No space left on device" in err
    assert err.count("\n") == 1
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    (small_disk / "filler").unlink()
    assert run("fit", "--config", path, "--resume", "auto")[0] == 0
    assert run("fit", "--config", path, "--trainer.default_root_dir", tmp_path / "logs")[0] == 0
    assert_same(final(small_disk / "gpt/version_0"), final(tmp_path / "logs/gpt/version_0"))


def damage(path, rng):
    """Flip a byte, cut it off, or empty it."""
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    kind = rng.choice(["flip", "cut", "empty"])
    content[place] ^= 0xFF
    path.write_bytes({"flip": bytes(content), "cut": bytes(content[:place]), "empty": b""}[kind])


def test_resume_auto_passes_over_damaged_checkpoints_and_says_so(run, tmp_path):
    path, rng = config("gpt", tmp_path, checkpoint__save_last=None), random.Random(0)
    assert run("fit", "--config", path)[0] == 0
    whole = {"final": torch.load(checkpoints(tmp_path / "logs/gpt/version_0")[12])["state_dict"]}
    whole["figures"] = figures(tmp_path / "logs/gpt/version_0")
    for step in (12, 11, 10):
        damage(checkpoints(tmp_path / "logs/gpt/version_0")[step], rng)
    status, out, err = run("fit", "--config", path, "--resume", "auto")
    assert status == 0, err
    for step in (12, 11, 10):
        assert any(f"{step}.ckpt" in line for line in out.splitlines() if line.startswith("warning: passed over: "))
    assert "9.ckpt, step 9" in out
    last = max((tmp_path / "logs/gpt/version_0/checkpoints").glob("12*.ckpt"), key=os.path.getmtime)
    assert_same(torch.load(last)["state_dict"], whole["final"])
    assert figures(tmp_path / "logs/gpt/version_0") == whole["figures"]


def test_the_newest_run_with_a_whole_checkpoint_is_taken(run, tmp_path):
    path = config("gpt", tmp_path, checkpoint__every_n_train_steps=None)
    for steps in (2, 3):
        assert run("fit", "--config", path, "--trainer.max_steps", steps)[0] == 0
    (tmp_path / "logs/gpt/version_2").mkdir()  # killed before its first checkpoint
    (tmp_path / "logs/gpt/version_10x").mkdir()
    arguments = ["--config", str(path), "--trainer.default_root_dir", str(tmp_path / "logs")]
    assert newest_checkpoint(arguments) == tmp_path / "logs/gpt/version_1/checkpoints/last.ckpt"
    assert newest_checkpoint([*arguments, "--experiment", "other"]) is None


def test_best_and_last_are_kept_and_no_more(run, tmp_path):
    path = config("gpt", tmp_path, checkpoint__every_n_train_steps=None)
    options = ("--checkpoint.monitor", "val/loss", "--checkpoint.save_top_k", 2)
    assert run("fit", "--config", path, *options)[0] == 0
    names = {file.name for file in (tmp_path / "logs/gpt/version_0/checkpoints").iterdir()}
    assert len(names) == 3
    assert "last.ckpt" in names
    losses = [float(row["val/loss"]) for row in figures(tmp_path / "logs/gpt/version_0") if "val/loss" in row]
    best = sorted(range(len(losses)), key=losses.__getitem__)[:2]
    assert names == {"last.ckpt", *(f"{3 * (i + 1)}.ckpt" for i in best)}


@pytest.mark.parametrize("how", ["sync", "async", "plugin"])
def test_the_best_that_is_the_last_is_written_once_and_stays_so_when_the_run_goes_on(run, tmp_path, how):
    """Also where it is written while training goes on, as this project or Lightning names that."""
    plugins = [{"class_path": "lightning.pytorch.plugins.AsyncCheckpointIO"}] if how == "plugin" else []
    changes = {"trainer__plugins": plugins, "checkpoint__every_n_train_steps": None, "checkpoint__save_top_k": 1}
    changes["model__init_args__schedule"] = {"class_path": "Constant"}  # the same for 6 steps as for 12
    path = config("gpt", tmp_path, **changes)
    more = ["--checkpoint.monitor=val/loss", "--checkpoint.filename=best"]
    more += ["--checkpoint.async_save=true"] if how == "async" else []
    folder = tmp_path / "logs/gpt/version_0/checkpoints"
    for steps in (6, 12):
        status, _, err = run("fit", "--config", path, "--resume", "auto", "--trainer.max_steps", steps, *more)
        assert status == 0, err
        assert {file.name for file in folder.iterdir()} <= {"best.ckpt", "best-v1.ckpt", "last.ckpt"}
        best = next(folder.glob("best*.ckpt"))
        assert read_header(folder / "last.ckpt")["global_step"] == steps
        if read_header(best)["global_step"] == steps:
            assert best.samefile(folder / "last.ckpt")
    assert len(list(folder.iterdir())) == 2
    whole = tmp_path / "whole"
    assert run("fit", "--config", path, "--trainer.default_root_dir", whole, *more)[0] == 0
    assert_same(final(folder.parent), final(whole / "gpt/version_0"))


def test_a_file_that_cannot_be_finished_leaves_what_was_there(tmp_path):
    path = tmp_path / "a"
    for name in ("a", "a.part", "a.old"):
        (tmp_path / name).write_text("before")
    with suppress(KeyError), atomic_file(path) as file:
        file.write(b"half")
        raise KeyError
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "a.old", "a.part"]
    assert {file.read_text() for file in tmp_path.iterdir()} == {"before"}
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is no file"), atomic_file(tmp_path / "pipe"):
        pass


def test_a_checkpoint_larger_than_the_disk_is_refused_and_leaves_the_one_before(small_disk):
    """Where PyTorch, which ends its archive all the same, raises an error of its own."""
    save_checkpoint({"weights": torch.zeros(10)}, small_disk / "last.ckpt")
    for size in (1_048_000, 1_200_000):  # numbers of 4 bytes
        with pytest.raises(InputError, match=r"last\.ckpt cannot be written: No space left on device"):
            save_checkpoint({"weights": torch.zeros(size)}, small_disk / "last.ckpt")
    assert len(torch.load(small_disk / "last.ckpt")["weights"]) == 10
    assert [path.name for path in small_disk.iterdir()] == ["last.ckpt"]


def test_shards_take_their_name_when_all_are_there(tmp_path):
    path = tmp_path / "last.ckpt"
    for content in ("one", "two"):
        with atomic_folder(path, lambda: None) as aside:
            (aside / "part").mkdir()
            (aside / "part/0").write_text(content)
        check_shards(path)
        assert (path / "part/0").read_text() == content
    with suppress(KeyError), atomic_folder(path, lambda: None) as aside:
        (aside / "part.0").write_text("three")
        raise KeyError
    check_shards(path)
    assert (path / "part/0").read_text() == "two"
    (path / "part/0").write_text("owt")
    with pytest.raises(InputError, match="incomplete or damaged"):
        check_shards(path)
    (path / "part/0").unlink()
    with pytest.raises(InputError, match="incomplete or damaged"):
        check_shards(path)
    (path / "checksums.json").write_text(json.dumps([1]))
    (path / "meta.pt").touch()
    with pytest.raises(InputError, match="incomplete"):
        read_header(path)


def test_whole_shards_are_found_between_their_two_names(run, tmp_path):
    """As a kill leaves them that comes while two folders change places."""
    path = config("gpt", tmp_path, checkpoint__every_n_train_steps=None)
    assert run("fit", "--config", path, "--trainer.max_steps", 2)[0] == 0
    folder = tmp_path / "logs/gpt/version_0/checkpoints"
    header = torch.load(folder / "last.ckpt")
    (folder / "last.ckpt").unlink()
    with atomic_folder(folder / "last.ckpt", lambda: None) as aside:
        torch.save({k: v for k, v in header.items() if k != "state_dict"}, aside / "meta.pt")
    (folder / "last.ckpt").rename(folder / "last.ckpt.old")
    arguments = ["--config", str(path)]
    assert newest_checkpoint(arguments) == folder / "last.ckpt.old"
    replace_folder(folder / "last.ckpt.old", folder / "other.ckpt")
    assert newest_checkpoint(arguments) == folder / "other.ckpt"


@pytest.mark.slow
def test_a_second_signal_does_no_harm(tmp_path):
    """A checkpoint is being written when the second one comes."""
    path = config("gpt", tmp_path, trainer__max_steps=100000, checkpoint__every_n_train_steps=None)
    command = [sys.executable, "-m", "src", "fit", "--config", str(path), "--trainer.limit_val_batches", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "Plan" in line:
            break
    time.sleep(3)
    for _ in range(5):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    read_header(tmp_path / "logs/gpt/version_0/checkpoints/last.ckpt")
