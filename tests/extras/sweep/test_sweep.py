"""Sweeps as a user runs them: what they leave, what ends them, and what is refused before any run."""

import csv
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from src.extras.sweep.configuration import with_settings
from src.extras.sweep.definition import sweep_of
from src.extras.sweep.queue import is_lost
from src.extras.sweep.results import runs_of
from src.extras.sweep.scheduling import run_sweep
from src.extras.sweep.study import find_study, open_storage, sweep_of_study
from src.extras.sweep.trial import visible_device
from tests.callbacks.test_hparams import tab
from tests.extras.sweep import pretend

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
ROOT = Path(__file__).parents[3]
OPTIMIZERS = {
    "model.optimizer": [
        {"name": "sgd", "value": {"class_path": "SGD"}, "parameters": {"model.optimizer.lr": [0.1, 1.0e30]}},
        {"name": "adamw", "value": {"class_path": "AdamW"}, "parameters": {"model.optimizer.lr": [0.01]}},
    ]
}


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def results(folder):
    study = find_study(open_storage(folder), folder.name)
    return runs_of(study, sweep_of_study(study))


def sweeping(path, folder, *arguments):
    """A sweep in a process of its own."""
    command = [sys.executable, "-m", "src", "sweep", "--config", path, "--study", folder, "--threads", 1, *arguments]
    places = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(list(map(str, command)), env=places, stdout=pipe, stderr=pipe, text=True, cwd=folder.parent)


def test_a_sweep_from_its_file_to_its_report(run, write_sweep, tmp_path):
    folder = tmp_path / "study"
    path = write_sweep(parameters=OPTIMIZERS, seeds=[3, 4])
    status, out, err = run("sweep", "--config", path, "--study", folder, "--jobs", 2, "--threads", 1)
    assert status == 0, err
    assert "[6/6]" in out
    # the diverging cell is recorded with its reason, and the others are complete
    found = rows(folder / "runs.csv")
    assert [(row["model.optimizer"], row["seed"]) for row in found if row["state"] == "complete"] == [
        ("sgd", "3"),
        ("adamw", "3"),
        ("sgd", "4"),
        ("adamw", "4"),
    ]
    for row in found:
        if row["state"] != "complete":
            assert row["sgd: model.optimizer.lr"] == "1e+30"
            assert row["state"] == "diverged"
            assert re.search(r"(loss|gradient norm|val/loss is) (nan|inf) at step \d+", row["reason"])
    # with one seed both optimizers start from the same weights and see the same batches; with another from others
    for what in ("initial_weights", "batches", "first_loss"):
        by_seed = {seed: {row[what] for row in found if row["seed"] == seed and row[what]} for seed in "34"}
        assert all(len(values) == 1 for values in by_seed.values()), what
        assert by_seed["3"] != by_seed["4"]
    report = (folder / "report.md").read_text()
    assert "loss of the first batch | equal in all 2 cells" in report
    assert "| sgd, lr=1e+30 | 3 | diverged |" in report
    for name in re.findall(r"!\[.*?\]\((.+?)\)", report):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"
    assert [row["seeds"] for row in rows(folder / "report.csv")] == ["2", "2"]
    for row in found:
        check_run(tmp_path / row["folder"], row)
    # it can be made again, and there is nothing left to run
    (folder / "report.md").unlink()
    status, out, _ = run("report", "--study", folder)
    assert (status, (folder / "report.md").read_text()) == (0, report)
    status, out, _ = run("sweep", "--config", path, "--study", folder)
    assert (status, len(list((folder / "runs").iterdir()))) == (0, 6)
    # the best configuration trains by itself
    status, _, err = run("fit", "--config", folder / "best.yaml", "--trainer.max_steps", 2)
    assert status == 0, err


def check_run(folder, row):
    """An ordinary run of what its cell says, with a row in TensorBoard's table."""
    resolved = yaml.safe_load((folder / "version_0/config.yaml").read_text())
    optimizer = resolved["model"]["init_args"]["optimizer"]
    name = "SGD" if row["model.optimizer"] == "sgd" else "AdamW"
    rate = float(row["sgd: model.optimizer.lr"] or row["adamw: model.optimizer.lr"])
    assert optimizer["class_path"] == f"torch.optim.{name}"
    assert optimizer["init_args"]["lr"] == rate
    # the base's AdamW has 0.1; torch's own defaults are 0 and 0.01
    assert optimizer["init_args"]["weight_decay"] == (0 if name == "SGD" else 0.01)
    assert resolved["seed_everything"] == int(row["seed"])
    settings, metrics, events = tab(folder / "version_0")
    assert settings == {"model.optimizer": name, "model.optimizer.lr": rate, "seed": float(row["seed"])}
    assert metrics == ["val/loss"]
    if row["state"] == "complete":
        assert events.Scalars("val/loss")[-1].value == pytest.approx(float(row["val/loss"]), rel=1e-6)
    assert (folder / "output.txt").stat().st_size > 0


@pytest.mark.slow
def test_one_and_two_at_a_time_give_the_same_numbers(run, write_sweep, tmp_path):
    path = write_sweep(seeds=[0], set={"trainer.max_steps": 6})
    for jobs in (1, 2):
        folder = tmp_path / f"jobs_{jobs}"
        assert run("sweep", "--config", path, "--study", folder, "--jobs", jobs, "--threads", 1)[0] == 0
    one, two = ({r.label: (r.value, r.record["curve"]) for r in results(tmp_path / f"jobs_{n}")} for n in (1, 2))
    assert one == two
    assert len(one) == 2


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_where_it_stopped(write_sweep, tmp_path):
    """SIGKILL with runs under way, then two processes at once on what is left."""
    folder = tmp_path / "study"
    path = write_sweep(seeds=[0, 1, 2], set={"trainer.max_steps": 6})
    killed = sweeping(path, folder, "--jobs", 2)
    for line in killed.stdout:
        if line.startswith("[1/"):
            break
    killed.kill()
    killed.wait()
    time.sleep(0.5)  # its runs notice that it is gone
    before = {r.number: r.value for r in results(folder)}
    assert 1 <= len(before) < 6
    again = [sweeping(path, folder, "--jobs", 1) for _ in range(2)]
    outputs = [process.communicate() for process in again]
    assert [process.returncode for process in again] == [0, 0], outputs
    after = results(folder)
    assert sorted((r.label, r.seed) for r in after) == [(name, seed) for name in ("gelu", "relu") for seed in (0, 1, 2)]
    assert all(r.state == "complete" for r in after)
    assert {r.number: r.value for r in after if r.number in before} == before
    # one folder a run: nothing was run twice but what the killed one had in hand
    n_folders = len(list((folder / "runs").iterdir()))
    assert 6 <= n_folders <= 6 + 2
    done = sum(len(re.findall(r"^\[\d+/6\]", out, re.M)) for out, _ in outputs)
    assert done == 6 - len(before)


@pytest.fixture
def pretended(write_sweep, tmp_path):
    """A sweep over learning rates whose runs train nothing."""

    def sweep(rates, jobs=1, fit=pretend.fit):
        content = yaml.safe_load(write_sweep(parameters={"model.optimizer.lr": rates}, seeds=[0]).read_text())
        made = sweep_of({**content, "base": [content["base"]]}, "sweep.yaml")
        run_sweep(made, tmp_path / "study", None, jobs, 1, fit=fit, check=pretend.check)
        return results(tmp_path / "study")

    return sweep


def test_whatever_ends_a_run_the_others_go_on(pretended):
    found = {r.parameters["model.optimizer.lr"]: r for r in pretended([1, 2, 3, 4, 5, 6, 7, 8], jobs=2)}
    assert {rate: r.state for rate, r in found.items()} == {
        1: "complete",
        2: "failed",
        3: "failed",
        4: "failed",
        5: "diverged",
        6: "complete",  # these two were asked to end, and done again
        7: "complete",
        8: "complete",
    }
    reasons = {rate: r.record["reason"] for rate, r in found.items()}
    assert reasons[2] == "RuntimeError: out of luck"
    assert reasons[3] == "killed by SIGKILL"
    assert reasons[4] == "SystemExit: 0"
    assert reasons[5] == "the loss is nan at step 7"
    assert all(r.value == rate for rate, r in found.items() if r.state == "complete")


def test_a_sweep_without_any_result_has_a_report(pretended, tmp_path):
    assert {r.state for r in pretended([2, 3])} == {"failed"}
    assert "killed by SIGKILL" in (tmp_path / "study/report.md").read_text()


@pytest.mark.slow
def test_a_sweep_that_is_told_to_stop_ends_its_runs_and_can_go_on(pretended, tmp_path):
    """SIGTERM to the sweep, while one run is done and another never would be."""
    with pytest.raises(KeyboardInterrupt):
        pretended([1, 9])
    folder = tmp_path / "study"
    study = find_study(open_storage(folder), folder.name)
    assert [(trial.state.name, is_lost(trial)) for trial in study.trials] == [
        ("COMPLETE", False),
        ("FAIL", True),
    ]
    assert list((folder / ".processes").iterdir()) == []
    assert [(r.value, r.state) for r in pretended([1, 9])] == [(1, "complete"), (9, "complete")]


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ({"parameters": {"model.config.actvation": ["relu"]}}, [], r"unknown key 'model\.config\.actvation'; did you"),
        ({"parameters": {"trainer.max_step": [1, 2]}}, [], r"unknown key 'trainer\.max_step'; did you mean"),
        (
            {"parameters": {"model.optimizer.lr": [0.1, "fast"]}},
            [],
            r"lr=fast: model\.optimizer\.lr is fast: it must be a number",
        ),
        ({"parameters": {"model.optimizer": ["AdmW"]}}, [], r"no class 'AdmW'; did you mean 'AdamW'"),
        (
            {"parameters": {"model.config.activation": ["relu", "gelo"]}},
            [],
            r"activation=gelo: .*unknown activation 'gelo'",
        ),
        ({"parameters": {"model.config.activation": []}}, [], r"the grid is empty"),
        ({}, ["--set", "trainer.max_steps=many"], r"trainer\.max_steps is many: it must be a whole number"),
        ({}, ["--set", "trainer.max_steps"], r"not of the form KEY=VALUE"),
        ({}, ["--set", "trainer.devices=4"], r"trainer\.devices is 4: each run of a sweep has one device"),
        ({}, ["--base", "missing.yaml"], r"missing\.yaml cannot be read"),
        ({}, ["--jobs", "1000"], r"--jobs 1000 is more than this machine's \d+ CPUs"),
        ({}, ["--jobs", "0"], r"'0' is no whole number"),
        ({}, ["--storage", "nonsense"], r"the storage nonsense cannot be used"),
        ({}, ["--storage", "sqlite:////nowhere/at/all.db"], r"cannot be used: unable to open database file"),
        (
            {},
            ["--storage", "postgresql://me:secret@127.0.0.1:1/x"],
            r"the storage \.\.\.@127\.0\.0\.1:1/x cannot be used",
        ),
        ({"seedz": [1]}, [], r"unknown key 'seedz' in .*sweep\.yaml; did you mean 'seeds'"),
    ],
)
def test_what_cannot_work_is_refused_before_any_run(run, write_sweep, tmp_path, content, arguments, message):
    folder = tmp_path / "study"
    status, _, err = run("sweep", "--config", write_sweep(**content), "--study", folder, *arguments)
    assert status == 2
    assert re.search(message, err), err
    assert err.count("\n") == 1
    assert "secret" not in err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"parameters": {"model.config.activation": ["relu", "elu"]}},
            r"parameters\.model\.config\.activation was .*elu",
        ),
        ({"set": {"trainer.max_steps": 5}}, r"set\.trainer\.max_steps was None and is 5"),
        ({"seeds": [1]}, r"seeds was \[0, 1, 2\] and is \[1\], which is less"),
        ({"metric": "val/perplexity"}, r"metric was val/loss and is val/perplexity"),
    ],
)
def test_a_study_of_another_sweep_is_refused_and_stays_as_it_is(run, write_sweep, tmp_path, changed, message):
    folder = tmp_path / "study"
    content = yaml.safe_load(write_sweep().read_text())
    made = sweep_of({**content, "base": [content["base"]]}, "sweep.yaml")
    base = with_settings(yaml.safe_load(Path(content["base"]).read_text()), {"trainer.devices": 1})
    pretend.opened(folder, made, base).close()
    before = find_study(open_storage(folder), "study").user_attrs
    status, _, err = run("sweep", "--config", write_sweep(**changed), "--study", folder)
    assert status == 2
    assert re.search(rf"the study study was made from another sweep: {message}", err), err
    assert err.count("\n") == 1
    assert find_study(open_storage(folder), "study").user_attrs == before


@pytest.mark.parametrize(
    ("visible", "n_devices", "seen"),
    [(None, 0, {}), (None, 2, {0: "0", 1: "1", 2: "0"}), ("5,7", 2, {0: "5", 1: "7", 3: "7"}), ("3", 1, {1: "3"})],
)
def test_runs_are_spread_over_the_accelerators(monkeypatch, visible, n_devices, seen):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for slot, name in seen.items():
        assert visible_device(slot, n_devices) == {"CUDA_VISIBLE_DEVICES": name}
    assert seen or visible_device(0, n_devices) == {}


def test_a_report_of_nothing_is_refused(run, tmp_path):
    status, _, err = run("report", "--study", tmp_path / "nothing")
    assert (status, err.count("\n")) == (2, 1)
    assert "there is no study in" in err
