"""The verb and the callback: where results go, help, and a training that its evaluations do not change."""

import json

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import src.cli
from src.extras.evaluation.suites import SUITES


def scalars(folder) -> dict[str, list[int]]:
    """The steps of each scalar of a run."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "heldout.txt"
    path.write_text("seven grey dogs ran over old stone bridges\n" * 4, encoding="utf-8")
    return path


def test_a_suite_runs_at_given_steps_and_changes_nothing_of_the_training(run, config, tmp_path, text):
    settings = yaml.safe_load(config.read_text())
    settings["model"]["init_args"]["config"]["dropout"] = 0.1
    weights = []
    for callbacks in ([], [{"steps": 5, "command": f"--suite perplexity --input {text}"}]):
        names = "src.extras.evaluation.callback.Evaluate"
        settings["trainer"]["callbacks"] = [{"class_path": names, "init_args": of} for of in callbacks]
        config.write_text(yaml.safe_dump(settings))
        status, _, err = run("fit", "--config", config)
        assert status == 0, err
        last = tmp_path / f"logs/tiny/version_{len(weights)}/checkpoints/last.ckpt"
        weights.append(torch.load(last, weights_only=True)["state_dict"])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    folder = tmp_path / "logs/tiny/version_1"
    assert sorted(path.name for path in (folder / "evaluation").iterdir()) == ["step_000005", "step_000010"]
    assert scalars(folder)["perplexity/heldout.txt/bits_per_byte"] == [5, 10]
    # by hand, at the last step: beside the checkpoint, and to the run's TensorBoard
    checkpoint = folder / "checkpoints/last.ckpt"
    status, out, err = run("evaluate", "--checkpoint", checkpoint, "--suite", "perplexity", "--input", text)
    assert status == 0, err
    found = json.loads((folder / "checkpoints/last.evaluation/perplexity/results.json").read_text())
    assert found["step"] == 12
    assert scalars(folder)["perplexity/heldout.txt/bits_per_byte"] == [5, 10, 12]
    assert "bits_per_byte" in out


@pytest.mark.slow
def test_a_callback_that_could_not_evaluate_is_refused_before_the_first_step(run, config, tmp_path, text):
    settings = yaml.safe_load(config.read_text())
    for command, steps, message in [
        ("--suite perplexity --input nowhere.txt", 5, "Evaluate: there is no file nowhere.txt"),
        ("--suite beir --data .", [5], "Evaluate: . has no corpus.jsonl"),
        (f"--suite perplexity --input {text}", 0, "steps is 0"),
        (f"--suite perplexity --input {text}", None, "without steps it needs trainer.max_steps, to know the last"),
    ]:
        settings["trainer"] |= {"max_steps": -1, "max_epochs": 1} if steps is None else {}
        callback = {"class_path": "src.extras.evaluation.callback.Evaluate"}
        settings["trainer"]["callbacks"] = [{**callback, "init_args": {"command": command, "steps": steps}}]
        config.write_text(yaml.safe_dump(settings))
        status, _, err = run("fit", "--config", config)
        assert status == 2
        assert message in err
    assert not list((tmp_path / "logs").glob("tiny/*/checkpoints/*.ckpt"))


@pytest.mark.slow
@pytest.mark.skipif("track" not in src.cli.VERBS, reason="this project has no track")
def test_a_track_is_judged_by_a_suite_after_the_last_step(run, config, tmp_path, text, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    callback = {"class_path": "src.extras.evaluation.callback.Evaluate"}
    callback["init_args"] = {"command": f"--suite perplexity --input {text}"}
    track = {
        "title": "A tiny one",
        "base": str(config),
        "set": {"trainer.callbacks": [callback], "trainer.val_check_interval": 12},
        "frozen": ["data", "trainer.callbacks"],
        "metric": "perplexity/heldout.txt/bits_per_byte",
        "seeds": [0, 1],
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(track))
    options = ["--records", tmp_path / "records", "--study", tmp_path / "study", "--threads", 1]
    status, _, err = run("track", "run", "--track", tmp_path / "tiny.yaml", *options)
    assert status == 0, err
    found = json.loads((tmp_path / "records/tiny/baseline.json").read_text())["runs"]
    results = [json.loads(path.read_text()) for path in (tmp_path / "study").rglob("perplexity/results.json")]
    assert [one["step"] for one in results] == [12, 12]
    values = [score["value"] for one in results for score in one["scores"] if score["metric"] == "bits_per_byte"]
    assert sorted(values) == pytest.approx(sorted(run["value"] for run in found))


def test_help_and_refusals(run, checkpoints, in_folder):
    status, out, _ = run("evaluate", "--help")
    assert status == 0
    assert all(f"  {suite} " in out for suite in SUITES)
    assert "--stride N" in run("evaluate", "--suite", "perplexity", "--help")[1]
    for arguments, message in [
        ((), "--suite is required: one of lm, core"),
        (("--suite", "gleu"), "required: --checkpoint"),
        (("--suite", "gleu", "--checkpoint", "x.ckpt"), "unknown suite 'gleu'; did you mean 'glue'?"),
        (("--suite", "glue", "--checkpoint", "x.ckpt"), "there is no checkpoint x.ckpt"),
        (
            ("--suite", "perplexity", "--checkpoint", checkpoints["bert"], "--input", "x"),
            "holds a bert: this needs a gpt",
        ),
        (("--suite", "lm", "--checkpoint", checkpoints["bert"], "--tasks", "x"), "holds a bert: this needs a gpt"),
    ]:
        status, out, err = run("evaluate", *arguments)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert message in err
