"""Positions against the paper's formula, and their numbering under padding and caching."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.nn import SinusoidalPositions, position_ids


@pytest.mark.parametrize("d_model", [1, 2, 7, 16, 512])
def test_sinusoidal_table_is_the_formula(d_model):
    layer = SinusoidalPositions(1500, d_model)  # odd widths, and beyond 1,000 positions
    for position in (0, 1, 999, 1499):
        for i in range(d_model):
            angle = position / 10000 ** (2 * (i // 2) / d_model)
            expected = math.cos(angle) if i % 2 else math.sin(angle)
            assert layer(torch.tensor([position]))[0, i].item() == pytest.approx(expected, abs=1e-6)


def test_sinusoidal_table_is_a_buffer_that_is_not_saved():
    layer = SinusoidalPositions(8, 4)
    assert list(layer.parameters()) == []
    assert layer.state_dict() == {}
    assert dict(layer.to(torch.float64).named_buffers())["table"].dtype == torch.float64


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), min_size=1, max_size=4), st.integers(0, 4))
def test_positions_count_the_real_tokens(rows, offset):
    width = max(padding + real for padding, real in rows)
    offset = min(offset, width - 1)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for row, (_, real) in enumerate(rows):
        mask[row, width - real :] = 1
    positions = position_ids(torch.zeros(len(rows), width - offset), mask, offset)
    for row, (_, real) in enumerate(rows):
        expected = [max(0, i - (width - real)) for i in range(offset, width)]
        assert positions[row].tolist() == expected
