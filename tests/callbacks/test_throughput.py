"""The figures of speed: their definitions."""

import csv
import time

import pytest
import torch

from src.callbacks import Throughput
from src.callbacks.throughput import training_flops
from src.hardware import compute_dtype, matmul_peak, native_precision
from src.models import GPTConfig
from src.optim import Constant
from src.tasks import GPTModule


@pytest.mark.parametrize(("seq", "n"), [(64, 1), (256, 1), (64, 4)])
def test_flops_are_six_per_weight_and_token_and_those_of_attention(seq, n):
    """6 N D for the matrix products, with the output layer among them, and 12 L T d per token for attention.

    Each further token that is predicted takes a block and the output layer once more.
    """
    config = GPTConfig(vocab_size=512, max_seq_len=256, d_model=128, n_heads=4, n_layers=3, n_future_tokens=n)
    task = GPTModule(config, optimizer=torch.optim.AdamW, schedule=Constant())
    flops = training_flops(task, {"input_ids": torch.zeros(2, seq, dtype=torch.long)})
    blocks = 3 + n - 1
    matrices = blocks * 12 * 128**2 + n * 512 * 128
    assert flops == 2 * seq * (6 * matrices + 12 * blocks * seq * 128)


@pytest.mark.parametrize("attention", ["dense", "sliding_window", "flex", "flash_attn"])
def test_flops_of_a_window_grow_as_the_length(attention):
    """Whichever kernel computes it; the masked dense one computes all pairs."""
    shape = {"vocab_size": 64, "max_seq_len": 4096, "d_model": 64, "n_heads": 4, "n_layers": 2, "window": 100}
    config = GPTConfig(**shape, attention=attention, attention_dropout=0.0)
    task = GPTModule(config, optimizer=torch.optim.AdamW, schedule=Constant())
    short, long = (training_flops(task, {"input_ids": torch.zeros(1, n, dtype=torch.long)}) for n in (2048, 4096))
    assert (long == 2 * short) == (attention != "dense")


def test_tokens_per_second_are_those_of_the_clock(run, config, tmp_path):
    """The logged speed cannot be above what the run's own duration allows, nor far below what its steps took."""
    start = time.perf_counter()
    status, _, err = run("fit", "--config", config, "--trainer.max_steps", 40, "--trainer.log_every_n_steps", 20)
    seconds = time.perf_counter() - start
    assert status == 0, err
    with (tmp_path / "logs/tiny/version_0/metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["throughput/tokens_per_second"]]
    tokens = 20 * 4 * 32
    measured = [tokens / float(row["throughput/tokens_per_second"]) for row in rows]
    assert len(measured) == 2
    assert 0 < sum(measured) < seconds
    assert all(0 < float(row["throughput/hardware_utilisation"]) < 1 for row in rows)


def test_validation_is_not_counted(monkeypatch):
    clock = iter([0.0, 10.0, 50.0, 60.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    meter = Throughput()
    meter.restart()  # at 0
    meter._pause()  # at 10, for a validation
    meter.on_train_batch_start()  # at 50
    meter._pause()  # at 60
    assert meter._seconds == 20


def test_precision_follows_the_faster_matrix_product():
    cpu = torch.device("cpu")
    precision = native_precision("cpu")
    assert precision in ("bf16-mixed", "32-true")
    if precision == "bf16-mixed":
        assert matmul_peak(torch.bfloat16, cpu) > matmul_peak(torch.float32, cpu)
    assert native_precision("cpu") == precision
    assert [compute_dtype(p) for p in ("32-true", "bf16-mixed", "16-mixed", "bf16-true")] == [
        torch.float32,
        torch.bfloat16,
        torch.float16,
        torch.bfloat16,
    ]
