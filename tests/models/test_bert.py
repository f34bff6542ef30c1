"""BERT: its invariants, its shape and its first weights."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForPreTraining

from src.models import BERT, BERTClassifier, BERTClassifierConfig, BERTConfig
from src.nn import ACTIVATIONS

SMALL = {"vocab_size": 61, "max_seq_len": 24, "d_model": 32, "n_heads": 4, "n_layers": 3}


def small(**changes) -> BERT:
    torch.manual_seed(0)
    return BERT(BERTConfig(**{**SMALL, **changes})).eval()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 23), st.integers(0, 60))
def test_padding_changes_nothing(length, pad_id):
    model, row = small(), torch.arange(length)[None] * 7 % 61
    input_ids = torch.full((2, 24), pad_id)
    attention_mask = torch.zeros(2, 24, dtype=torch.long)
    input_ids[0, :length], attention_mask[0, :length] = row[0], 1
    input_ids[1], attention_mask[1] = torch.arange(24), 1
    padded, alone = model(input_ids, attention_mask=attention_mask), model(row)
    torch.testing.assert_close(padded.masked_words[:1, :length], alone.masked_words, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(padded.next_sentence[:1], alone.next_sentence, atol=1e-5, rtol=1e-4)
    assert padded.masked_words.isfinite().all()


def test_the_words_at_some_positions_are_those_of_all():
    model, input_ids = small(), torch.arange(48).view(2, 24)
    positions = torch.tensor([[3, 20, 0], [7, 0, 0]])
    some, everywhere = model(input_ids, masked_positions=positions), model(input_ids)
    assert some.masked_words.shape == (2, 3, 61)
    expected = everywhere.masked_words[torch.arange(2)[:, None], positions]
    torch.testing.assert_close(some.masked_words, expected, atol=1e-5, rtol=1e-5)


def test_it_looks_both_ways_and_tells_segments_apart():
    model, input_ids = small(), torch.arange(24)[None]
    before = model(input_ids).masked_words
    for position in (0, 23):
        changed = input_ids.clone()
        changed[0, position] = 60
        assert ((model(changed).masked_words - before).abs().amax(-1) > 0).all()
    assert not torch.allclose(model(input_ids, token_type_ids=torch.ones_like(input_ids)).masked_words, before)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_loss_at_the_start_is_that_of_guessing(norm):
    torch.manual_seed(0)
    model = BERT(BERTConfig(vocab_size=5000, max_seq_len=64, d_model=128, n_heads=4, n_layers=4, norm=norm))
    words, next_sentence = model(torch.randint(5000, (8, 64)))
    loss = cross_entropy(words.flatten(0, 1), torch.randint(5000, (8 * 64,)))
    assert loss.item() == pytest.approx(math.log(5000), rel=0.05)
    assert cross_entropy(next_sentence, torch.randint(2, (8,))).item() == pytest.approx(math.log(2), rel=0.2)


def test_one_batch_is_overfitted():
    model = small(dropout=0.0, attention_dropout=0.0).train()
    generator = torch.Generator().manual_seed(0)
    input_ids, labels = torch.randint(61, (2, 4, 24), generator=generator).unbind()
    next_sentence = torch.tensor([0, 1, 1, 0])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(200):
        outputs = model(input_ids)
        words = cross_entropy(outputs.masked_words.flatten(0, 1), labels.flatten())
        pairs = cross_entropy(outputs.next_sentence, next_sentence)
        optimizer.zero_grad()
        (words + pairs).backward()
        optimizer.step()
    assert max(words.item(), pairs.item()) < 0.05


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_every_parameter_gets_a_gradient_and_no_two_blocks_share_one(norm):
    model = small(norm=norm).train()
    words, next_sentence = model(torch.arange(24)[None], torch.arange(24)[None] // 12)
    (words.pow(2).sum() + next_sentence.pow(2).sum()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    blocks = model.encoder.blocks
    assert len({id(p) for p in blocks.parameters()}) == len(list(blocks[0].parameters())) * 3


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_works(name):
    torch.manual_seed(0)
    assert BERTClassifier(BERTClassifierConfig(**SMALL, activation=name, n_labels=5))(torch.arange(24)[None]).shape == (
        1,
        5,
    )


def test_weights_start_as_in_the_paper():
    model = BERT(BERTConfig(vocab_size=500, max_seq_len=64, d_model=256, n_heads=4, n_layers=2, init_std=0.05))
    truncated = 0.8796  # the deviation of a normal cut at two of its own
    for weight, std in (
        (model.encoder.token_embedding.weight, 0.05),
        (model.encoder.position_embedding.weight, 0.02),
        (model.encoder.segment_embedding.weight, 0.02),
        (model.encoder.blocks[0].attention.qkv.weight, 0.05),
        (model.masked_words.dense.weight, 0.05),
    ):
        assert weight.std().item() == pytest.approx(std * truncated, rel=0.06)
        assert weight.abs().max() <= 2 * std
    assert BERTConfig().init_std == 0.02
    assert not model.encoder.blocks[0].attention.qkv.bias.any()
    assert (model.encoder.embedding_norm.weight == 1).all()
    assert model.masked_words.decoder.weight is model.encoder.token_embedding.weight


def test_bert_base_has_its_parameters():
    with torch.device("meta"):
        ours, theirs = BERT(BERTConfig()), BertForPreTraining(BertConfig())
    assert sum(p.numel() for p in ours.parameters()) == 110_106_428
    assert sum(p.numel() for p in theirs.parameters()) == 110_106_428


def test_more_tokens_than_positions():
    with pytest.raises(ValueError, match="25 tokens are more than the 24 positions"):
        small()(torch.zeros(1, 25, dtype=torch.long))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 5}, "d_model 32 is not divisible by n_heads 5"),
        ({"n_segments": -1}, "n_segments is -1: it must be at least 0"),
        ({"n_labels": 0}, "n_labels is 0: it must be at least 1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"init_std": 0.0}, "init_std is 0.0: it must be above 0"),
        ({"activation": "gelo"}, "unknown activation 'gelo'"),
        ({"norm": "mid"}, "norm is 'mid': choose 'pre' or 'post'"),
    ],
)
def test_a_shape_that_cannot_work_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        BERTClassifierConfig(**{**SMALL, **changes})
