"""The GPT task: what accumulation, ranks and precision must not change, and what is logged."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn.functional import cross_entropy

from src.checkpoint import load_trained
from src.data import LMDataModule
from src.models import GPT
from tests.conftest import prepared
from tests.distributed.jobs import losses
from tests.tasks.measure_fast_paths import PLAIN, with_logits

ROOT = Path(__file__).parents[2]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path)["state_dict"]


def trained(run, config: Path, version: int, *arguments: object) -> dict[str, torch.Tensor]:
    status, _, err = run("fit", "--config", config, *arguments)
    assert status == 0, err
    return weights(config.parent / f"logs/tiny/version_{version}/checkpoints/last.ckpt")


def sgd(config: Path) -> None:
    """Plain gradient steps: Adam would hide a gradient that is too large by a factor."""
    settings = yaml.safe_load(config.read_text())
    settings["model"]["init_args"]["optimizer"] = {"class_path": "SGD", "init_args": {"lr": 0.5}}
    config.write_text(yaml.safe_dump(settings))


def assert_close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    for name, tensor in a.items():
        torch.testing.assert_close(tensor, b[name], atol=1e-6, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


def test_k_batches_of_b_train_as_one_of_kb(run, config):
    """Over a whole epoch, whose last step has fewer rows than the others."""
    sgd(config)
    epoch = ("--trainer.max_epochs", 1, "--trainer.max_steps", -1, "--trainer.val_check_interval", 1.0)
    epoch += ("--trainer.check_val_every_n_epoch", 1)
    whole = trained(run, config, 0, *epoch, "--data.batch_size", 12)
    parts = trained(run, config, 1, *epoch, "--data.batch_size", 4, "--trainer.accumulate_grad_batches", 3)
    assert_close(whole, parts)


def test_without_logits_it_trains_as_with_them(run, config, monkeypatch):
    sgd(config)
    apart = trained(run, config, 0)
    monkeypatch.setattr("src.nn.cross_entropy.summed_cross_entropy", with_logits)
    together = trained(run, config, 1)
    assert_close(apart, together)
    metrics = [(config.parent / f"logs/tiny/version_{n}/metrics.csv").read_text().splitlines() for n in (0, 1)]
    column = metrics[0][0].split(",").index("val/loss")
    losses = [[float(v) for row in rows[1:] if (v := row.split(",")[column])] for rows in metrics]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_in_bfloat16_the_fast_paths_learn_as_the_plain_ones(run, config, monkeypatch):
    """Losses of a run that learns: apart by far less than those of two seeds."""

    def validation(version, *arguments):
        trained(run, config, version, "--trainer.precision", "bf16-mixed", "--trainer.max_steps", 60, *arguments)
        return torch.tensor(losses(config.parent / f"logs/tiny/version_{version}", "val/loss"))

    fast, another = validation(0), validation(1, "--seed_everything", 1)
    for name, value in PLAIN.items():
        monkeypatch.setattr(name, value)
    plain = validation(2)
    assert fast[-1] < fast[0] - 0.3
    assert (fast - plain).abs().max() < 0.01
    assert (fast - plain).abs().max() < (fast - another).abs().max()


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(run, config, tmp_path):
    """Under DDP over gloo, in an epoch whose rows do not divide evenly among the ranks."""
    sgd(config)
    whole = trained(run, config, 0, "--data.batch_size", 6)
    command = [sys.executable, "-m", "src", "fit", "--config", str(config), "--data.batch_size", "3"]
    command += ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    folders = sorted(path.name for path in (tmp_path / "logs/tiny").iterdir())
    assert folders == ["version_0", "version_1"]  # two processes, one run
    assert_close(whole, weights(tmp_path / "logs/tiny/version_1/checkpoints/last.ckpt"))
    one, two = ((tmp_path / f"logs/tiny/version_{n}/metrics.csv").read_text().splitlines() for n in (0, 1))
    column = one[0].split(",").index("val/loss")
    losses = [[float(v) for row in rows[1:] if (v := row.split(",")[column])] for rows in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_logged_figures_are_those_of_the_whole_split(run, config, tmp_path):
    """Loss, perplexity and bits per byte against the definition, token by token from the raw text."""
    trained(run, config, 0)
    checkpoint = tmp_path / "logs/tiny/version_0/checkpoints/last.ckpt"
    status, _, err = run("validate", "--ckpt_path", checkpoint)
    assert status == 0, err
    gpt, tokenizer, _ = load_trained(checkpoint, GPT)
    data = prepared(LMDataModule(**yaml.safe_load(config.read_text())["data"]["init_args"]))
    assert tokenizer.to_str() == data.tokenizer.to_str()
    ids = torch.tensor(data.dataset("validation").ids[:].astype("int64"))
    nats = 0.0
    with torch.no_grad():
        for start in range(0, len(ids) - 1, 32):
            block = ids[start : start + 33]
            nats += cross_entropy(gpt(block[None, :-1])[0].double(), block[1:], reduction="sum").item()
    n_bytes = len(tokenizer.decode(ids.tolist()).encode())
    rows = (tmp_path / "logs/tiny/version_1/metrics.csv").read_text().splitlines()
    logged = dict(zip(rows[0].split(","), rows[1].split(","), strict=True))
    loss = nats / (len(ids) - 1)
    assert float(logged["val/loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(logged["val/perplexity"]) == pytest.approx(math.exp(loss), rel=1e-5)
    assert float(logged["val/bits_per_byte"]) == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-5)


def test_clipping_is_by_the_global_norm(run, config, tmp_path):
    """One plain gradient step of a clipped gradient moves the weights by exactly rate x norm."""
    sgd(config)
    arguments = ("--trainer.max_steps", 1, "--model.schedule", "Constant", "--model.schedule.warmup_steps", 0)
    trained(run, config, 0, *arguments, "--model.optimizer.lr", 1e-12)
    trained(run, config, 1, *arguments, "--trainer.gradient_clip_val", 0.01)
    before, after = (weights(tmp_path / f"logs/tiny/version_{n}/checkpoints/last.ckpt") for n in (0, 1))
    tied = "model.head.weight"
    moved = sum((after[n] - before[n]).double().pow(2).sum() for n in before if n != tied).sqrt().item()
    assert moved == pytest.approx(0.5 * 0.01, rel=1e-3)


@pytest.mark.slow
def test_a_compiled_network_writes_the_same_checkpoint_keys(run, config):
    sgd(config)
    plain = trained(run, config, 0, "--trainer.max_steps", 2)
    compiled = trained(run, config, 1, "--trainer.max_steps", 2, "--model.compile", "true")
    assert_close(plain, compiled)


@pytest.mark.parametrize("optimizer", ["SGD", "Adagrad", "RMSprop", "Adam", "Adadelta", "NAdam", "AdamW"])
def test_any_torch_optimizer_by_one_word(run, config, optimizer):
    settings = yaml.safe_load(config.read_text())
    settings["model"]["init_args"]["optimizer"] = {"class_path": optimizer, "init_args": {"lr": 0.01}}
    config.write_text(yaml.safe_dump(settings))
    status, _, err = run("fit", "--config", config, "--trainer.max_steps", 2)
    assert status == 0, err


@pytest.mark.parametrize("schedule", ["Constant", "Cosine", "Linear", "InverseSquareRoot", "WarmupStableDecay"])
def test_any_schedule_by_one_word(run, config, schedule):
    settings = yaml.safe_load(config.read_text())
    arguments = {"decay_steps": 4} if schedule == "WarmupStableDecay" else {}
    settings["model"]["init_args"]["schedule"] = {"class_path": schedule, "init_args": arguments}
    config.write_text(yaml.safe_dump(settings))
    status, _, err = run("fit", "--config", config, "--trainer.max_steps", 3)
    assert status == 0, err


def test_bf16_mixed_trains_and_keeps_its_weights_in_float32(run, config):
    plain = trained(run, config, 0)
    mixed = trained(run, config, 1, "--trainer.precision", "bf16-mixed")
    assert all(tensor.dtype == torch.float32 for tensor in mixed.values())
    difference = max((plain[name] - mixed[name]).abs().max().item() for name in plain)
    assert 0 < difference < 0.1


def test_documents_that_are_kept_apart_are_evaluated_as_if_alone(run, config, tmp_path):
    """Which changes the loss; a window wider than the block does not."""
    apart = ("--data.separate_documents", "true")
    window = ("--model.config.attention", "sliding_window", "--model.config.window", "32")
    found = {}
    for name, options in {"whole": (), "apart": apart, "both": (*apart, *window)}.items():
        status, _, err = run("fit", "--config", config, "--experiment", name, *options)
        assert status == 0, err
        found[name] = losses(tmp_path / "logs" / name / "version_0", "val/loss")[-1]
    assert found["both"] == pytest.approx(found["apart"], abs=1e-5)
    assert abs(found["apart"] - found["whole"]) > 1e-4
