"""Schedules by their defining points, and against torch and the paper where those have the same."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.errors import InputError
from src.optim import Constant, Cosine, InverseSquareRoot, Linear, WarmupStableDecay

DECAYS = [
    lambda warmup, final: Linear(warmup, final),
    lambda warmup, final: Cosine(warmup, final),
    lambda warmup, final: WarmupStableDecay(20, warmup, final),
]


@pytest.mark.parametrize("make", DECAYS)
@given(st.integers(0, 30), st.floats(0, 1))
def test_a_decay_warms_up_peaks_and_ends_at_its_final_factor(make, warmup, final):
    schedule, total = make(warmup, final), 100
    factors = [schedule.factor(step, total) for step in range(total)]
    assert factors[:warmup] == [(step + 1) / warmup for step in range(warmup)]
    assert factors[warmup] == pytest.approx(1)
    assert factors[-1] == pytest.approx(final)
    assert all(a >= b - 1e-12 for a, b in zip(factors[warmup:], factors[warmup + 1 :], strict=False))
    assert schedule.factor(total + 50, total) == pytest.approx(final)  # past the plan


def test_stable_then_decay():
    schedule = WarmupStableDecay(decay_steps=20, warmup_steps=10)
    assert [schedule.factor(step, 100) for step in (10, 50, 79, 89, 99)] == pytest.approx([1, 1, 1, 0.5, 0])


def test_cosine_is_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=49, eta_min=0.1)
    for step in range(50):
        assert Cosine(0, 0.1).factor(step, 50) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


def test_inverse_square_root_is_the_papers_rate():
    d_model, warmup = 512, 4000
    peak = (d_model * warmup) ** -0.5
    for step in (1, 100, 3999, 4000, 4001, 100_000):
        paper = d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert peak * InverseSquareRoot(warmup).factor(step - 1, 0) == pytest.approx(paper)


def test_constant():
    assert [Constant(2).factor(step, 10) for step in range(4)] == [0.5, 1, 1, 1]
    assert math.isclose(Constant().factor(0, 10), 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(-1), "warmup_steps is -1"),
        (lambda: Linear(0, 1.5), "final_factor is 1.5"),
        (lambda: WarmupStableDecay(0), "decay_steps is 0"),
    ],
)
def test_numbers_that_cannot_be(make, message):
    with pytest.raises(InputError, match=message):
        make()
