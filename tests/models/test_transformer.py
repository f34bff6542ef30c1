"""The Transformer: its invariants, its shape and its first weights."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from src.models import Transformer, TransformerConfig
from tests.random_networks import padded

SMALL = {
    "vocab_size": 61,
    "source_vocab_size": 47,
    "max_seq_len": 24,
    "d_model": 32,
    "n_heads": 4,
    "n_encoder_layers": 2,
    "n_decoder_layers": 3,
    "d_ff": 48,
}
SHARED = {"tie_embeddings": True, "source_vocab_size": None}


def small(seed=0, **changes) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(TransformerConfig(**{**SMALL, **changes})).eval()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 18), st.integers(0, 60))
def test_no_future_token_changes_a_past_logit(position, token):
    model, source = small(), torch.arange(7)[None]
    target = torch.arange(20)[None]
    changed = target.clone()
    changed[0, position + 1 :] = token
    assert torch.equal(model(source, target)[:, : position + 1], model(source, changed)[:, : position + 1])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 23), st.integers(1, 23), st.integers(0, 46), st.booleans())
def test_a_padded_batch_gives_the_unpadded_logits(source_length, target_length, pad_id, masked):
    model = small()
    input_ids, attention_mask = padded([source_length, 24], 24, 47)
    input_ids = input_ids + pad_id * (1 - attention_mask)
    target, target_mask = padded([target_length, 24], 24, 61)
    logits = model(input_ids, target, attention_mask, target_mask if masked else None)
    alone = model(input_ids[:1, :source_length], target[:1, :target_length])
    torch.testing.assert_close(logits[0, :target_length], alone[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits[1], model(input_ids[1:], target[1:])[0], atol=1e-5, rtol=1e-4)
    assert logits.isfinite().all()


def test_padding_in_front_of_the_target_is_not_seen():
    model, source = small(), torch.arange(9)[None]
    target = torch.arange(12)[None]
    mask = torch.ones_like(target)
    mask[0, :4] = 0
    changed = target.clone()
    changed[0, :4] = 50
    expected, logits = (model(source, ids, decoder_attention_mask=mask) for ids in (target, changed))
    torch.testing.assert_close(logits[:, 4:], expected[:, 4:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_cached_logits_equal_uncached(norm):
    model = small(norm=norm)
    input_ids, attention_mask = padded([9, 4], 9, 47)
    target = torch.arange(40).view(2, 20)
    memory, cache = model.encode(input_ids, attention_mask), model.new_cache(9, 20)
    pieces = [
        model.head(model.decode(target[:, a:b], memory, attention_mask, cache=cache))
        for a, b in [(0, 5), (5, 6), (6, 13), (13, 20)]
    ]
    torch.testing.assert_close(torch.cat(pieces, 1), model(input_ids, target, attention_mask), atol=1e-5, rtol=1e-4)


def test_several_targets_of_one_source_share_its_memory():
    model = small()
    input_ids, attention_mask = padded([9, 4], 9, 47)
    target = torch.arange(60).view(6, 10)
    memory = model.encode(input_ids, attention_mask)
    expected = model.decode(target, memory.repeat_interleave(3, 0), attention_mask.repeat_interleave(3, 0))
    torch.testing.assert_close(model.decode(target, memory, attention_mask), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("changes", [{}, SHARED], ids=["own embeddings", "one matrix"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_first_loss_is_near_that_of_guessing(norm, changes):
    shape = {"vocab_size": 2000, "source_vocab_size": 2000, "d_model": 128, "n_encoder_layers": 3}
    model = small(norm=norm, **{**changes, **shape})
    ids = torch.randint(2000, (2, 16, 24))
    loss = cross_entropy(model(ids[0], ids[1]).flatten(0, 1), torch.randint(2000, (16 * 24,)))
    # logits of variance 1 cost half a nat
    assert loss.item() == pytest.approx(math.log(2000) + 0.5, rel=0.05)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_every_parameter_gets_a_gradient_and_no_two_blocks_share_one(norm):
    model = small(norm=norm).train()
    weight = torch.randn(1, 20, 61)
    (model(torch.arange(24)[None], torch.arange(20)[None]) * weight).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert len({id(p) for p in model.decoder.parameters()}) == len(list(model.decoder[0].parameters())) * 3


def test_one_batch_is_overfitted():
    model = small(dropout=0.0).train()
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randint(47, (4, 12), generator=generator), torch.randint(61, (4, 13), generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        loss = cross_entropy(model(source, target[:, :-1]).flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_the_papers_models_have_their_parameters():
    """Table 3 gives 65 and 213 million."""
    base = TransformerConfig(vocab_size=37000, tie_embeddings=True)
    big = TransformerConfig(vocab_size=37000, tie_embeddings=True, d_model=1024, n_heads=16)
    with torch.device("meta"):
        counts = [sum(p.numel() for p in Transformer(config).parameters()) for config in (base, big)]
    assert counts == pytest.approx([63e6, 214e6], rel=0.01)


def test_more_tokens_than_positions():
    with pytest.raises(ValueError, match="25 tokens are more than the 24 positions"):
        small()(torch.zeros(1, 25, dtype=torch.long), torch.zeros(1, 1, dtype=torch.long))
    with pytest.raises(ValueError, match="25 tokens are more than the 24 positions"):
        small()(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 25, dtype=torch.long))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 5}, "d_model 32 is not divisible by n_heads 5"),
        ({"n_encoder_layers": 0}, "n_encoder_layers is 0: it must be at least 1"),
        ({"source_vocab_size": 0}, "source_vocab_size is 0"),
        ({"tie_embeddings": True}, "tie_embeddings needs one vocabulary for both languages: the source has 47"),
        ({"activation": "gelo"}, "unknown activation 'gelo'"),
        ({"norm": "mid"}, "norm is 'mid': choose 'pre' or 'post'"),
    ],
)
def test_a_shape_that_cannot_work_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**{**SMALL, **changes})
