"""Positions against the paper's formula, and their numbering under padding and caching."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from src.nn import SinusoidalPositions, alibi_slopes, position_ids
from src.nn.positions import Rope, rotate


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


@pytest.mark.parametrize("head_dim", [2, 8, 64])
def test_rotation_equals_huggingface(head_dim):
    config = LlamaConfig(hidden_size=head_dim, num_attention_heads=1, head_dim=head_dim, max_position_embeddings=5000)
    q, k = torch.randn(2, 1, 1, 5000, head_dim)
    cos, sin = LlamaRotaryEmbedding(config)(q, torch.arange(5000)[None])
    expected = apply_rotary_pos_emb(q, k, cos, sin)
    angles = Rope(head_dim).angles(torch.arange(5000))
    for found, wanted in zip((rotate(q, *angles), rotate(k, *angles)), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=3e-3, rtol=0)  # theirs are angles of float32


@given(st.integers(0, 3000), st.integers(0, 20_000))
def test_rotated_products_depend_on_the_distance_alone(distance, shift):
    q, k = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(0))
    products = []
    for position in (0, shift):
        turned = [rotate(x, *Rope(16).angles(torch.tensor([p]))) for x, p in ((q, position + distance), (k, position))]
        products.append((turned[0] * turned[1]).sum())
    torch.testing.assert_close(*products, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n_heads", [1, 2, 3, 8, 12, 16, 20])
def test_slopes_equal_huggingface(n_heads):
    bias = build_alibi_tensor(torch.ones(1, 2), n_heads, torch.float64)
    assert list(alibi_slopes(n_heads)) == pytest.approx(bias[:, 0, 1].tolist(), rel=1e-6)


def test_positions_begin_anew_with_each_document():
    documents = torch.tensor([[0, 0, 0, 1, 1, 2], [4, 5, 5, 5, 5, 5]])
    expected = [[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 3, 4]]
    assert position_ids(documents, documents=documents).tolist() == expected


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize("scaling", ["linear", "ntk", "yarn", "llama3"])
def test_scaled_frequencies_equal_huggingface(scaling, fraction):
    theirs = {"linear": "linear", "ntk": "dynamic", "yarn": "yarn", "llama3": "llama3"}[scaling]
    parameters = {"rope_type": theirs, "rope_theta": 500.0, "factor": 4.0, "partial_rotary_factor": fraction}
    if scaling in ("yarn", "llama3"):
        parameters["original_max_position_embeddings"] = 256
    if scaling == "llama3":
        parameters |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = LlamaConfig(
        hidden_size=128, num_attention_heads=2, max_position_embeddings=1024, rope_parameters=parameters
    )
    # theirs grows with the text's length: at this one its base is that of a fixed factor of 4
    length = int(1024 * (2 - 1 / 4)) if scaling == "ntk" else None
    frequencies, temperature = ROPE_INIT_FUNCTIONS[theirs](config, "cpu", seq_len=length)
    rope = Rope(int(64 * fraction), 500.0, scaling, 4.0, 256)
    found = rope._frequencies(torch.float64, torch.device("cpu"))
    torch.testing.assert_close(found.float(), frequencies, atol=0, rtol=1e-6)
    cos, sin = rope.angles(torch.tensor([3]))
    assert (cos**2 + sin**2).sqrt().tolist() == [pytest.approx([temperature] * len(frequencies))]


def test_what_is_not_turned_carries_no_position():
    x = torch.randn(1, 1, 5, 8)
    turned = rotate(x, *Rope(4).angles(torch.arange(5)))
    assert torch.equal(turned[..., 4:], x[..., 4:])
    assert torch.equal(turned[..., :4], rotate(x[..., :4], *Rope(4).angles(torch.arange(5))))
