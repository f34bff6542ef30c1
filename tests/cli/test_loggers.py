"""Loggers that a configuration names stand beside the run's own, of which its folder, resuming and reproducing are."""

import csv
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.conftest import LACKS


@pytest.fixture(autouse=True)
def finished(monkeypatch, tmp_path):
    """W&B's run of a process ends with the process, which here goes on; nothing is sent anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    finish()


def finish() -> None:
    if find_spec("wandb"):
        import wandb

        wandb.finish()
        wandb.teardown()  # which waits until its files are written


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{LACKS} {package}")


def steps(path: Path, name: str = "train/loss") -> list[int]:
    """Those at which a metrics.csv has a figure."""
    with path.open() as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row.get(name)]


def of_csv(folder: Path) -> list[list[int]]:
    found = [steps(folder / f"lightning_logs/version_{n}/metrics.csv") for n in range(4)]
    return [found[0], found[1] + found[2], found[3]]  # a file is not appended to


def of_wandb(folder: Path) -> list[list[int]]:
    runs: dict[str, set[int]] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        content = path.read_bytes()
        assert b"d_model" in content or path.stem in runs  # a run that goes on has its configuration
        found = re.findall(rb"trainer/global_step\x82\x01(.)(\d+)", content)  # each with its length
        runs.setdefault(path.stem, set()).update(int(digits[: ord(length)]) for length, digits in found)
    return [sorted(found) for found in runs.values()]


def of_mlflow(folder: Path) -> list[list[int]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'lightning_logs'")
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    assert all(run.data.params["model/init_args/config/d_model"] == "16" for run in runs)
    return [[point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] for run in runs]


EXPECTED = [[2, 4], [2, 4, 6, 8], [2, 4, 6, 8]]


@pytest.mark.parametrize(
    ("options", "logged"),
    [
        (["CSVLogger", "--trainer.logger.save_dir", "."], of_csv),
        pytest.param(["WandbLogger"], of_wandb, marks=needs("wandb")),
        # which takes ten seconds to make its database
        pytest.param(["MLFlowLogger"], of_mlflow, marks=[needs("mlflow"), pytest.mark.slow]),
    ],
    ids=["csv", "wandb", "mlflow"],
)
def test_two_runs_a_resumed_one_and_a_reproduced_one(run, config, tmp_path, options, logged):
    command = ["fit", "--config", config, "--trainer.logger", *options, "--trainer.max_steps"]
    runs = tmp_path / "logs/tiny"
    for arguments in (
        [*command, 4],
        [*command, 4],
        [*command, 8, "--resume", "auto"],
        ["reproduce", runs / "version_1"],
    ):
        status, out, err = run(*arguments)
        finish()
        assert status == 0, err
        assert ("last.ckpt, step 4" in out) == ("auto" in arguments)
    for n, expected in enumerate(EXPECTED):
        assert steps(runs / f"version_{n}/metrics.csv") == expected
        for name in ("config.yaml", "manifest.json", "checkpoints/last.ckpt"):
            assert (runs / f"version_{n}" / name).is_file(), name
        assert list((runs / f"version_{n}").glob("events.out.tfevents.*"))
    assert len(list(runs.iterdir())) == len(EXPECTED)
    assert logged(tmp_path) == EXPECTED


def test_a_list_of_loggers(run, config, tmp_path):
    named = [{"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path / name)}} for name in "ab"]
    (tmp_path / "loggers.yaml").write_text(yaml.safe_dump({"trainer": {"logger": named}}))
    status, _, err = run("fit", "--config", config, "--config", tmp_path / "loggers.yaml", "--trainer.max_steps", 4)
    assert status == 0, err
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("metrics.csv"))
    assert written == [f"{name}/lightning_logs/version_0/metrics.csv" for name in "ab"] + [
        "logs/tiny/version_0/metrics.csv"
    ]


@pytest.mark.parametrize(("logger", "files"), [("true", 1), ("false", 0)])
def test_the_runs_own_loggers_alone_or_none(run, config, tmp_path, logger, files):
    command = ["fit", "--config", config, "--trainer.logger", logger, "--trainer.max_steps"]
    for arguments in ([*command, 4], [*command, 6, "--resume", "auto"]):
        status, out, err = run(*arguments)
        assert status == 0, err
    assert "last.ckpt, step 4" in out
    (folder,) = (tmp_path / "logs/tiny").iterdir()
    assert (folder / "config.yaml").is_file()
    assert len(list(folder.glob("metrics.csv"))) == files
    assert bool(list(folder.glob("events*"))) == files
    assert not (tmp_path / "lightning_logs").exists()


def test_a_package_that_is_missing_is_named(run, config, tmp_path):
    assert find_spec("comet_ml") is None
    status, _, err = run("fit", "--config", config, "--trainer.logger", "CometLogger")
    assert status == 2
    assert err == f"error: the package comet-ml is not installed: {sys.executable} -m pip install comet-ml\n"
    assert not (tmp_path / "logs").exists()


@needs("wandb")
def test_a_service_that_does_not_open_leaves_no_run(run, config, tmp_path, monkeypatch):
    """W&B's own site, without a key."""
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    status, _, err = run("fit", "--config", config, "--trainer.logger", "WandbLogger")
    assert status == 2
    assert err.splitlines()[-1].startswith("error: trainer.logger WandbLogger: ")
    assert not (tmp_path / "logs/tiny").exists()
