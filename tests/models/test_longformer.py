"""Longformer against its own dense form, and its edges."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LongformerConfig as TheirConfig
from transformers import LongformerModel

from src.models import BERT, BERTConfig, Longformer, LongformerConfig

SMALL = {"vocab_size": 61, "max_seq_len": 300, "d_model": 32, "n_heads": 4, "n_layers": 2, "window": 16}


def small(**changes) -> Longformer:
    torch.manual_seed(0)
    return Longformer(LongformerConfig(**{**SMALL, "init_std": 0.2, **changes})).eval()


def batch(lengths, seed=0):
    width = max(lengths)
    input_ids = torch.randint(2, 61, (len(lengths), width), generator=torch.Generator().manual_seed(seed))
    attention_mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return input_ids.masked_fill(attention_mask == 0, 1), attention_mask


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_the_window_in_blocks_is_the_masked_dense_network(data):
    lengths = data.draw(st.lists(st.integers(1, 300), min_size=1, max_size=3))
    window = data.draw(st.integers(0, 310))
    tokens = sorted(data.draw(st.sets(st.integers(0, 299), max_size=5)))
    input_ids, attention_mask = batch(lengths)
    dense, blocks = (small(attention=name, window=window, global_tokens=tokens) for name in ("dense", "sliding_window"))
    expected, found = (model(input_ids, attention_mask=attention_mask).masked_words for model in (dense, blocks))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_global_tokens_of_the_configuration_are_those_of_a_mask():
    model = small(global_tokens=[0, 7, 200])
    input_ids, attention_mask = batch([150, 5])  # position 200 is in neither, 7 in the first alone
    marked = torch.zeros_like(input_ids)
    marked[:, [0, 7]] = 1
    found = model(input_ids, attention_mask=attention_mask).masked_words
    expected = model(input_ids, attention_mask=attention_mask, global_attention_mask=marked).masked_words
    real = attention_mask.bool()
    torch.testing.assert_close(found[real], expected[real], atol=1e-5, rtol=1e-5)


def test_cls_carries_news_across_any_distance():
    """In two blocks of a window of 4 nothing else could."""
    input_ids = torch.randint(2, 61, (1, 300))
    changed = input_ids.clone()
    changed[0, 299] = (changed[0, 299] + 1) % 59 + 2
    for tokens, arrives in (([0], True), ([], False)):
        model = small(window=4, global_tokens=tokens)
        same = torch.equal(model(input_ids).masked_words[0, 100], model(changed).masked_words[0, 100])
        assert same != arrives


def test_every_parameter_gets_a_gradient():
    model = small().train()
    model(batch([300, 40])[0]).masked_words.pow(2).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_tokens": [0, 300]}, r"global_tokens is \[0, 300\]: they must be different positions from 0 to 299"),
        ({"global_tokens": [-1]}, r"global_tokens is \[-1\]"),
        ({"global_tokens": [3, 3]}, "different positions"),
        ({"window": None, "attention": "dense"}, "window is null: a Longformer needs one"),
        ({"attention": "flash"}, "a Longformer has 'sliding_window' or 'dense'|takes no window"),
        ({"window": [4]}, "one for each of the n_layers blocks"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LongformerConfig(**{**SMALL, **changes})


def test_inputs_that_do_not_fit_are_refused():
    model = small()
    with pytest.raises(ValueError, match="301 tokens are more than the 300 positions"):
        model(torch.zeros(1, 301, dtype=torch.long))
    with pytest.raises(ValueError, match=r"global_attention_mask is \(1, 5\): it must be as input_ids, \(1, 9\)"):
        model(torch.zeros(1, 9, dtype=torch.long), global_attention_mask=torch.zeros(1, 5))


def test_longformer_base_has_its_parameters():
    """Those of HuggingFace's, without the two rows that no position has and the pooler."""
    with torch.device("meta"):
        model = Longformer(LongformerConfig(vocab_size=50265, n_segments=1))
        theirs = LongformerModel(TheirConfig(vocab_size=50265, type_vocab_size=1, max_position_embeddings=4098), False)
    ours = sum(p.numel() for p in model.encoder.parameters())
    assert ours == sum(p.numel() for p in theirs.parameters()) - 2 * 768


def test_a_bert_with_a_window_wider_than_its_input_is_a_bert():
    torch.manual_seed(0)
    config = BERTConfig(vocab_size=61, max_seq_len=100, d_model=32, n_heads=4, n_layers=2, init_std=0.2)
    model = BERT(config).eval()
    windowed = BERT(replace(config, attention="sliding_window", window=100)).eval()
    windowed.load_state_dict(model.state_dict())
    input_ids, attention_mask = batch([100, 37])
    real = attention_mask.bool()
    found, expected = (m(input_ids, attention_mask=attention_mask).masked_words[real] for m in (windowed, model))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
