"""A run's manifest, and starting it again from it."""

import hashlib
import json
import platform
import subprocess

import torch
import yaml

from src.manifest import differences, git_state
from tests.reliability.runs import assert_same, final


def test_a_run_keeps_what_it_was_made_with(run, config, tmp_path):
    assert run("fit", "--config", config, "--trainer.max_steps", 2, "--seed_everything", 5)[0] == 0
    folder = tmp_path / "logs/tiny/version_0"
    record = json.loads((folder / "manifest.json").read_text())
    assert record["seed"] == 5
    assert record["python"] == platform.python_version()
    assert record["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert record["packages"]["lightning"].startswith("2.6.")
    assert record["hardware"]["cores"] >= 1
    saved = torch.load(folder / "checkpoints/last.ckpt")
    assert record["tokenizer_sha256"] == hashlib.sha256(saved["tokenizer"].encode()).hexdigest()
    assert record["data_fingerprint"] == saved["data_fingerprint"]
    assert record["resumed"] == []


def test_a_run_is_reproduced_and_what_differs_is_said(run, config, tmp_path):
    assert run("fit", "--config", config, "--trainer.max_steps", 4, "--seed_everything", 3)[0] == 0
    folder = tmp_path / "logs/tiny/version_0"
    status, out, err = run("reproduce", folder)
    assert status == 0, err
    assert "differs from the record:\nnothing\n" in out
    assert_same(final(tmp_path / "logs/tiny/version_1"), final(folder))
    record = json.loads((folder / "manifest.json").read_text())
    record["packages"]["torch"], record["python"] = "1.0", "2.7"
    record["git"] = {"commit": "abc", "diff": "a\nb\n", "untracked": []}
    (folder / "manifest.json").write_text(json.dumps(record))
    status, out, err = run("reproduce", folder, "--trainer.max_steps", 1, "--seed_everything", 4)
    assert status == 0, err
    for line in ("python: 2.7, now 3", "packages.torch: 1.0, now ", "git.commit: abc, now ", "seed: 3, now 4"):
        assert line in out
    assert torch.load(tmp_path / "logs/tiny/version_2/checkpoints/last.ckpt")["global_step"] == 1


def test_a_run_that_went_on_is_reproduced_from_its_beginning(run, config, tmp_path):
    settings = yaml.safe_load(config.read_text())
    settings["model"]["init_args"]["schedule"] = {"class_path": "Constant"}
    config.write_text(yaml.safe_dump(settings))
    command = ("fit", "--config", config, "--resume", "auto")
    assert run(*command, "--trainer.max_steps", 3)[0] == 0
    assert run(*command, "--trainer.max_steps", 6)[0] == 0
    folder = tmp_path / "logs/tiny/version_0"
    (again,) = json.loads((folder / "manifest.json").read_text())["resumed"]
    assert again["checkpoint"].endswith("version_0/checkpoints/last.ckpt")
    assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["max_steps"] == 6
    assert run("reproduce", folder)[0] == 0
    assert_same(final(tmp_path / "logs/tiny/version_1")["state_dict"], final(folder)["state_dict"])


def test_the_state_of_a_repository_is_told(tmp_path):
    assert git_state(tmp_path) is None

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "a").write_text("one\n")
    git("add", "a")
    git("commit", "-m", "a")
    clean = git_state(tmp_path)
    assert len(clean["commit"]) == 40
    assert (clean["diff"], clean["untracked"]) == ("", [])
    (tmp_path / "a").write_text("two\n")
    (tmp_path / "b").write_text("new\n")
    dirty = git_state(tmp_path)
    assert "+two" in dirty["diff"]
    assert dirty["untracked"] == ["b"]
    assert differences({"git": clean}, {"git": dirty}) == [
        "git.diff: none, now 7 lines",
        "git.untracked: none, now ['b']",
    ]
