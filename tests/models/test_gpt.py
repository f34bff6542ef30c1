"""GPT: its invariants, its shape and its first weights."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from src.models import GPT, GPTConfig

SMALL = {"vocab_size": 61, "max_seq_len": 24, "d_model": 32, "n_heads": 4, "n_layers": 3}


def small(**changes) -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(**{**SMALL, **changes})).eval()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 22), st.integers(0, 60))
def test_no_future_token_changes_a_past_logit(position, token):
    model, input_ids = small(), torch.arange(24)[None] % 61
    changed = input_ids.clone()
    changed[0, position + 1 :] = token
    assert torch.equal(model(input_ids)[:, : position + 1], model(changed)[:, : position + 1])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 23), st.integers(0, 60), st.booleans())
def test_a_padded_batch_gives_the_unpadded_logits(length, pad_id, left):
    model, prompt = small(), torch.arange(length)[None] * 7 % 61
    input_ids = torch.full((2, 24), pad_id)
    attention_mask = torch.zeros(2, 24, dtype=torch.long)
    place = slice(24 - length, None) if left else slice(length)
    input_ids[0, place], attention_mask[0, place] = prompt[0], 1
    input_ids[1], attention_mask[1] = torch.arange(24), 1
    logits = model(input_ids, attention_mask)
    torch.testing.assert_close(logits[0, place], model(prompt)[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits[1], model(input_ids[1:])[0], atol=1e-5, rtol=1e-4)
    assert logits.isfinite().all()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_loss_at_the_start_is_that_of_guessing(tied, norm):
    torch.manual_seed(0)
    model = GPT(
        GPTConfig(vocab_size=5000, max_seq_len=64, d_model=128, n_heads=4, n_layers=4, norm=norm, tie_embeddings=tied)
    )
    logits = model(torch.randint(5000, (8, 64)))
    loss = cross_entropy(logits.flatten(0, 1), torch.randint(5000, (8 * 64,)))
    assert loss.item() == pytest.approx(math.log(5000), rel=0.05)


def test_one_batch_is_overfitted():
    model = small(dropout=0.0, attention_dropout=0.0).train()
    input_ids = torch.randint(61, (4, 25), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(200):
        loss = cross_entropy(model(input_ids[:, :-1]).flatten(0, 1), input_ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_every_parameter_gets_a_gradient_and_no_two_blocks_share_one(norm):
    model = small(norm=norm).train()
    model(torch.arange(24)[None]).pow(2).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert len({id(p) for p in model.blocks.parameters()}) == len(list(model.blocks[0].parameters())) * 3


def test_weights_start_as_in_gpt2():
    model = GPT(GPTConfig(vocab_size=500, max_seq_len=64, d_model=256, n_heads=4, n_layers=8))
    block = model.blocks[0]
    for parameter, deviation in [
        (model.token_embedding.weight, 0.02),
        (model.position_embedding.weight, 0.02),
        (block.attention.qkv.weight, 0.02),
        (block.feed_forward.up.weight, 0.02),
        (block.attention.out.weight, 0.02 / 4),
        (block.feed_forward.down.weight, 0.02 / 4),
    ]:
        assert parameter.std().item() == pytest.approx(deviation, rel=0.05)
    assert not block.attention.qkv.bias.any()
    assert (block.attention_norm.weight == 1).all()


def test_gpt2_small_has_its_parameters():
    with torch.device("meta"):
        assert sum(p.numel() for p in GPT(GPTConfig()).parameters()) == 124_439_808


def test_cached_logits_equal_uncached():
    model, input_ids = small(), torch.arange(24)[None] * 5 % 61
    cache = model.new_cache()
    pieces = [model(input_ids[:, a:b], cache=cache) for a, b in [(0, 5), (5, 6), (6, 13), (13, 24)]]
    torch.testing.assert_close(torch.cat(pieces, 1), model(input_ids), atol=1e-5, rtol=1e-4)


def test_more_tokens_than_positions():
    with pytest.raises(ValueError, match="25 tokens are more than the 24 positions"):
        small()(torch.zeros(1, 25, dtype=torch.long))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 5}, "d_model 32 is not divisible by n_heads 5"),
        ({"n_layers": 0}, "n_layers is 0: it must be at least 1"),
        ({"vocab_size": -1}, "vocab_size is -1"),
        ({"d_ff": 0}, "d_ff is 0"),
        ({"dropout": 1.0}, "dropout is 1.0: it must be at least 0 and less than 1"),
        ({"attention_dropout": -0.1}, "attention_dropout is -0.1"),
        ({"activation": "gelo"}, "unknown activation 'gelo'"),
        ({"norm": "mid"}, "norm is 'mid': choose 'pre' or 'post'"),
    ],
)
def test_a_shape_that_cannot_work_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        GPTConfig(**{**SMALL, **changes})
