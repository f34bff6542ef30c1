"""`trainer.overfit_batches`: the same batches every epoch, masks and negatives among them, and after a resume."""

import csv

import pytest
import torch
import yaml

from tests.distributed.jobs import write_config
from tests.reliability.probes import Seen
from tests.reliability.runs import assert_same

SAME = {"stream": "gpt", "classifier": "bert"}  # and differ in their data
KINDS = ["gpt", "stream", "bert", "longformer", "transformer"]


@pytest.fixture
def fit(run, tmp_path):
    """A run of a kind; gives the batches that it trained on."""

    def command(kind, *options, write=write_config, **trainer):
        settings = yaml.safe_load(write(SAME.get(kind, kind), tmp_path).read_text())
        if kind == "stream":
            settings["data"]["init_args"] |= {"streaming": True, "holdout_documents": 3}
        if kind == "transformer":
            settings["data"]["init_args"]["max_tokens"] = 64
            settings["model"]["init_args"]["label_smoothing"] = 0.0  # with it the loss has a floor
        if kind == "classifier":
            tokenizer = tmp_path / "logs/bert/version_0/tokenizer.json"
            settings["model"]["class_path"] = "ClassificationModule"
            data = {"tokenizer": str(tokenizer), "seq_len": 32, "cache_dir": str(tmp_path / "cache")}
            settings["data"] = {"class_path": "ClassificationDataModule", "init_args": data}
        settings["experiment"] = kind
        settings["trainer"] |= {"callbacks": [{"class_path": "tests.reliability.probes.Seen"}], "max_steps": -1}
        settings["trainer"] |= {"accumulate_grad_batches": 1, "default_root_dir": str(tmp_path / "logs")}
        settings["trainer"] |= {"val_check_interval": 1000, **trainer}
        settings["checkpoint"] = {"every_n_train_steps": 3, "save_top_k": -1, "monitor": None, "filename": "{step}"}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(settings))
        status, _, err = run("fit", "--config", path, "--allow_class_paths", "tests", *options)
        assert status == 0, err
        return list(Seen.batches)

    return command


@pytest.mark.parametrize("kind", KINDS)
def test_every_epoch_has_the_same_batches(fit, kind):
    batches = fit(kind, overfit_batches=2, max_epochs=3)
    assert len(batches) == 6
    for epoch in (2, 4):
        assert_same(batches[epoch : epoch + 2], batches[:2])
    assert not torch.equal(batches[0]["input_ids"], batches[1]["input_ids"])


def test_every_epoch_of_a_classifier_has_the_same_batches(fit):
    fit("bert", max_steps=1)  # for its tokenizer
    batches = fit("classifier", overfit_batches=2, max_epochs=3)
    assert len(batches) == 6
    assert_same(batches[2:4], batches[:2])


@pytest.mark.parametrize("kind", ["bert", "stream"])
def test_a_resumed_run_has_them_too(fit, kind, tmp_path):
    """From within the second epoch."""
    whole = fit(kind, overfit_batches=2, max_epochs=3)
    checkpoint = tmp_path / f"logs/{kind}/version_0/checkpoints/3.ckpt"
    resumed = fit(kind, "--ckpt_path", checkpoint, overfit_batches=2, max_epochs=3)
    assert_same(resumed, whole[3:])


@pytest.mark.parametrize("kind", ["gpt", "bert", "transformer"])
def test_a_batch_is_learned_by_heart(fit, kind, tmp_path):
    fit(kind, overfit_batches=1, max_steps=200)
    with (tmp_path / f"logs/{kind}/version_0/metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert losses[-1] < 0.1 * losses[0]
