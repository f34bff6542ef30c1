"""A run that was interrupted anywhere ends as the uninterrupted one, to the last bit."""

import json
from collections import Counter

import pytest
import torch
import yaml

from tests.reliability.runs import STEPS, assert_same, checkpoints, config, figures, final


def check_resumed(run, whole, steps, *more):
    """Resume from the checkpoint of each step, and compare all that the two runs end with and log."""
    for step in steps:
        status, _, err = run("fit", "--ckpt_path", checkpoints(whole)[step], *more)
        assert status == 0, err
        resumed = max(whole.parent.iterdir(), key=lambda path: int(path.name.partition("_")[2]))
        assert_same(final(resumed), final(whole), f"from step {step}")
        assert figures(resumed, step) == figures(whole, step), step


@pytest.mark.parametrize(("kind", "steps"), [("gpt", (1, 3, 7)), ("bert", (2, 8)), ("transformer", (5, 6))])
def test_within_an_epoch_between_epochs_and_at_validations(run, tmp_path, kind, steps):
    """Dropout, weight averaging, accumulation, several epochs, masks anew each epoch, batches by length."""
    status, _, err = run("fit", "--config", config(kind, tmp_path))
    assert status == 0, err
    whole = tmp_path / f"logs/{kind}/version_0"
    last = torch.load(whole / "checkpoints/last.ckpt")
    assert last["global_step"] == STEPS
    assert last["epoch"] > 0  # more than one
    assert "plain_weights" in last
    check_resumed(run, whole, steps)


def test_the_rows_are_those_of_the_uninterrupted_run_with_workers_too(run, tmp_path):
    assert run("fit", "--config", config("bert", tmp_path))[0] == 0
    check_resumed(run, tmp_path / "logs/bert/version_0", (4,), "--data.num_workers", 2)


def test_a_stream_goes_on_at_its_place(run, tmp_path):
    changes = {"data__init_args__streaming": True, "data__init_args__holdout_documents": 3}
    assert run("fit", "--config", config("gpt", tmp_path, **changes))[0] == 0
    check_resumed(run, tmp_path / "logs/gpt/version_0", (4, 7))


@pytest.mark.slow
def test_the_scale_of_half_precision_goes_on(run, tmp_path, monkeypatch):
    """On a processor Lightning takes bfloat16 for it, so its own plugin of half precision is named."""
    # the peak of half precision takes a processor half a minute to measure, and matters to no weight
    monkeypatch.setattr("src.callbacks.throughput.matmul_peak", lambda *_: 1e9)
    half = {"class_path": "lightning.pytorch.plugins.MixedPrecision", "init_args": {"precision": "16-mixed"}}
    half["init_args"]["device"] = "cpu"
    path = config("gpt", tmp_path, trainer__plugins=[half], trainer__precision=None)
    status, _, err = run("fit", "--config", path)
    assert status == 0, err
    whole = tmp_path / "logs/gpt/version_0"
    scales = [torch.load(checkpoints(whole)[step])["MixedPrecision"] for step in (4, STEPS)]
    assert scales[0]["scale"] != 1.0
    assert scales[0]["_growth_tracker"] < scales[1]["_growth_tracker"]
    check_resumed(run, whole, (4,))
    again = torch.load(tmp_path / "logs/gpt/version_1/checkpoints/last.ckpt")
    assert again["MixedPrecision"] == torch.load(whole / "checkpoints/last.ckpt")["MixedPrecision"]


@pytest.mark.parametrize(("size", "accumulate"), [(8, 1), (5, 3)])
def test_an_epoch_goes_on_in_batches_of_another_size_with_each_row_once(run, tmp_path, size, accumulate):
    """Two epochs, the first one interrupted after two steps of two batches of 16 rows."""
    path = config("gpt", tmp_path, trainer__max_epochs=2, model__init_args__schedule={"class_path": "Constant"})
    command = ["fit", "--config", path, "--allow_class_paths", "tests", "--trainer.limit_val_batches", 0]

    def seen(name, *more):
        probe = {"class_path": "tests.distributed.probes.Batches", "init_args": {"folder": str(tmp_path / name)}}
        status, _, err = run(*command, f"--trainer.callbacks={json.dumps([probe])}", *more)
        assert status == 0, err
        ids = json.loads((tmp_path / name / "0.json").read_text())
        rows = [tuple(ids[i : i + 16]) for i in range(0, len(ids), 16)]
        return Counter(rows)

    whole = seen("whole", "--trainer.max_steps", -1)
    first = seen("first", "--trainer.max_steps", 2, "--trainer.max_epochs", -1)
    assert sum(first.values()) == 2 * 2 * 16
    last = tmp_path / "logs/gpt/version_1/checkpoints/last.ckpt"
    more = [f"--data.batch_size={size}", f"--trainer.accumulate_grad_batches={accumulate}", "--trainer.max_steps=-1"]
    rest = seen("rest", "--ckpt_path", last, *more)
    together = first + rest
    assert together.keys() == whole.keys()
    padding = [row for row in together if together[row] != whole[row]]
    assert len(padding) <= 2  # the first row of an epoch fills up its last batch
    assert sum(together.values()) - sum(whole.values()) < 2 * size


def test_one_seed_is_one_run_and_another_seed_another(run, tmp_path):
    path = config("transformer", tmp_path)
    for seed in (0, 0, 1):
        assert run("fit", "--config", path, "--trainer.max_steps", 4, "--seed_everything", seed)[0] == 0
    ends = [final(tmp_path / f"logs/transformer/version_{n}") for n in range(3)]
    assert_same(ends[1], ends[0])
    with pytest.raises(AssertionError):
        assert_same(ends[2], ends[0])


def test_other_data_are_refused_and_the_same_data_elsewhere_are_not(run, tmp_path):
    path = config("gpt", tmp_path)
    assert run("fit", "--config", path, "--trainer.max_steps", 2)[0] == 0
    last = tmp_path / "logs/gpt/version_0/checkpoints/last.ckpt"
    text = tmp_path / "text.txt"
    (tmp_path / "elsewhere.txt").write_text(text.read_text())
    again = ("fit", "--ckpt_path", last, "--data.source", tmp_path / "elsewhere.txt", "--trainer.max_steps", 3)
    assert run(*again)[0] == 0
    separator = yaml.safe_load(path.read_text())["data"]["init_args"]["document_separator"]
    documents = text.read_text().split(separator)
    text.write_text(separator.join([documents[0] + documents[1], *documents[1:]]))
    status, _, err = run("fit", "--ckpt_path", last, "--trainer.max_steps", 4)
    assert status == 2
    assert "the data are not those that the checkpoint was trained on" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "logs/gpt/version_2").exists()
