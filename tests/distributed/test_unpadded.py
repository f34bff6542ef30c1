"""Batches without padding under every strategy, on two processes over gloo: as one process trains, and resumes."""

from pathlib import Path

import pytest
import yaml

from src.checkpoint import read_checkpoint
from tests.distributed.jobs import HALFWAY, STEPS, fit, losses, run_job, write_config
from tests.distributed.test_strategies import STRATEGIES, slow_but


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """A BERT on masked words alone; documents of other lengths."""
    path = write_config("bert", tmp_path_factory.mktemp("unpadded"))
    settings = yaml.safe_load(path.read_text())
    settings["model"]["class_path"] = "MLMModule"
    settings["model"]["init_args"]["config"] |= {"max_seq_len": 80, "n_segments": 0, "positions": "rotary"}
    settings["data"]["init_args"] |= {"next_sentence": False, "unpadded": True, "seq_len": 80}
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory) -> Path:
    """The run of one process, and one that goes on from its checkpoint of half-way."""
    return trained(config, tmp_path_factory.mktemp("alone"), 1)


def trained(config: Path, logs: Path, ranks: int, *more: str, processes: int = 1) -> Path:
    whole = fit(config, logs, "bert", ranks, *more)
    halfway = logs / "bert" / "version_0" / "checkpoints" / f"{HALFWAY}.ckpt"
    run_job(logs / "job", [whole, [*whole, "--ckpt_path", str(halfway)]], processes)
    return logs / "bert"


def test_a_run_goes_on_with_the_very_next_documents(alone):
    expected = losses(alone / "version_0")
    assert losses(alone / "version_1") == pytest.approx(expected[HALFWAY:], abs=1e-6)
    assert not any(losses(alone / "version_0", "train/padding_share"))


def test_what_is_not_trained_stays_as_it_was_and_is_named(alone, run, tmp_path):
    """Of an average as well, from which no run goes on."""
    paths = [alone / f"version_0/checkpoints/{name}.ckpt" for name in (HALFWAY, "last")]
    assert run("average", "--checkpoints", *paths, "--output", tmp_path / "average.ckpt")[0] == 0
    assert read_checkpoint(tmp_path / "average.ckpt")["untrained"] == ["encoder.pooler", "next_sentence"]
    assert "has weights alone" in run("fit", "--ckpt_path", tmp_path / "average.ckpt")[2]
    first, last = map(read_checkpoint, paths)
    assert last["untrained"] == ["encoder.pooler", "next_sentence"]
    for name, weight in last["state_dict"].items():
        is_left = any(f"model.{part}." in name for part in last["untrained"])
        assert is_left == weight.equal(first["state_dict"][name]), name


@pytest.mark.parametrize("name", slow_but("fsdp"))
def test_the_losses_are_those_of_one_process(config, alone, tmp_path, name):
    """With accumulation, clipping, and as many documents on each process, of other lengths."""
    more = ["--config", f"configs/strategy/{name}.yaml", "--trainer.devices", "2"]
    found = trained(config, tmp_path, STRATEGIES[name], *more, processes=2)
    for metric, count in (("train/loss", STEPS), ("train/gradient_norm", STEPS), ("val/loss", 2)):
        expected = losses(alone / "version_0", metric)
        assert len(expected) == count
        assert losses(found / "version_0", metric) == pytest.approx(expected, abs=1e-4), metric
    resumed = losses(found / "version_1")
    assert resumed == pytest.approx(losses(found / "version_0")[HALFWAY:], abs=1e-6)
