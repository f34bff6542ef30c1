"""Beam search against the search of everything, and its invariants."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.decoding import beam_search, wu_penalty
from src.models import Transformer, TransformerConfig
from src.nn import KVCache
from tests.random_networks import padded

START, END = 0, 1


def small(vocab_size=37, std=None, **changes) -> Transformer:
    shape = {"max_seq_len": 40, "d_model": 16, "n_heads": 2, "n_encoder_layers": 1, "n_decoder_layers": 2, "d_ff": 24}
    model = Transformer(TransformerConfig(vocab_size=vocab_size, **{**shape, **changes})).eval()
    if std:  # sharper than at the start, so that scores differ and sentences end
        for parameter in model.parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=std)
    return model


def search(model, lengths, seed=0, **options):
    input_ids, mask = padded(lengths, max(lengths), model.config.vocab_size, seed)
    return beam_search(model, input_ids, mask, start_id=START, end_id=END, **options)


def log_probability(model, input_ids, mask, ids):
    target = torch.tensor([[START, *ids]])
    logits = model(input_ids, target[:, :-1], mask)[0]
    return logits.log_softmax(-1).gather(1, target[0, 1:, None]).sum().item()


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("min_len", [0, 2])
def test_a_wide_beam_finds_the_best_of_all_sequences(alpha, min_len):
    penalty, longest, vocab_size = wu_penalty(alpha), 4, 4
    for seed in range(4):
        torch.manual_seed(seed)
        model = small(vocab_size, std=0.5)
        input_ids, mask = padded([5], 5, vocab_size, seed)
        everything = []
        words = [token for token in range(vocab_size) if token != END]
        for n in range(longest + 1):
            for body in product(words, repeat=n):
                ids = body if n == longest else (*body, END)  # cut off at the limit, or ended
                if n >= min_len:
                    score = log_probability(model, input_ids, mask, ids) / penalty(torch.tensor(len(ids))).item()
                    everything.append((score, list(body)))
        everything.sort(reverse=True)
        found = beam_search(
            model, input_ids, mask, start_id=START, end_id=END, beam=81, n_best=5, max_len=longest, min_len=min_len,
            length_penalty=penalty,
        )[0]  # fmt: skip
        assert [hypothesis.ids for hypothesis in found] == [ids for _, ids in everything[:5]]
        assert [hypothesis.score for hypothesis in found] == pytest.approx([s for s, _ in everything[:5]], abs=1e-4)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=6),
    st.sampled_from([1, 3, 5]),
    st.sampled_from([None, 9]),
    st.integers(0, 1000),
)
def test_a_batch_gives_what_each_sentence_gives_alone(lengths, beam, max_len, seed):
    torch.manual_seed(seed)
    model = small(std=0.5)
    input_ids, mask = padded(lengths, max(lengths), 37, seed)
    options = {"start_id": START, "end_id": END, "beam": beam, "max_len": max_len, "n_best": beam}
    together = beam_search(model, input_ids, mask, **options)
    for i, length in enumerate(lengths):
        (alone,) = beam_search(model, input_ids[i : i + 1, :length], mask[i : i + 1, :length], **options)
        assert [h.ids for h in together[i]] == [h.ids for h in alone]
        assert [h.score for h in together[i]] == pytest.approx([h.score for h in alone], abs=1e-4)
        assert [h.score for h in alone] == sorted((h.score for h in alone), reverse=True)
        assert len({tuple(h.ids) for h in alone}) == len(alone)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_scores_are_those_of_the_model(alpha):
    torch.manual_seed(0)
    model, penalty = small(std=0.5), wu_penalty(alpha)
    input_ids, mask = padded([7], 7, 37)
    for ids, score in beam_search(
        model, input_ids, mask, start_id=START, end_id=END, beam=5, n_best=5, max_len=20, length_penalty=penalty
    )[0]:
        whole = ids if len(ids) == 20 else [*ids, END]
        expected = log_probability(model, input_ids, mask, whole) / penalty(torch.tensor(len(whole))).item()
        assert score == pytest.approx(expected, abs=1e-4)


def test_the_search_goes_on_while_a_running_hypothesis_can_win():
    """With a penalty that favours length, the first hypotheses that end must not end the search."""
    torch.manual_seed(1)
    model = small(std=0.35)
    with torch.no_grad():  # sentences end now and then
        model.decoder[-1].feed_forward_norm.bias.fill_(1)
        model.head.weight[END] += 6 / model.config.d_model
    short = search(model, [6, 6], beam=4, max_len=30, length_penalty=wu_penalty(0))
    long = search(model, [6, 6], beam=4, max_len=30, length_penalty=wu_penalty(4))
    assert max(len(h[0].ids) for h in short) < min(len(h[0].ids) for h in long)


def test_lengths_are_kept_within_their_limits():
    torch.manual_seed(0)
    model = small(std=0.5)
    for hypotheses in search(model, [4, 8], beam=4, n_best=4, min_len=6, max_len=9):
        assert all(6 <= len(h.ids) <= 9 and END not in h.ids for h in hypotheses)
    endless = small(max_seq_len=100, std=0.1)
    endless.head.weight.data[END] = 0
    found = search(endless, [3, 9], beam=2, length_penalty=wu_penalty(20))
    assert [len(h[0].ids) for h in found] == [53, 59]  # 50 more than the source has


def test_decoding_stops_at_the_last_position():
    torch.manual_seed(0)
    found = search(small(max_seq_len=16, std=0.1), [12], beam=2, length_penalty=wu_penalty(20))
    assert len(found[0][0].ids) == 16


def test_more_hypotheses_than_the_beam_are_refused():
    with pytest.raises(ValueError, match="n_best is 5: it must be between 1 and the beam of 4"):
        search(small(), [3], beam=4, n_best=5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(1, 4))
def test_a_cache_is_reordered_and_what_stays_is_not_copied(rows, length):
    cache, keys = KVCache(5), torch.randn(6, 2, length, 3)
    held = cache.append(keys, 2 * keys)[0]
    kept_at = [held[i].data_ptr() for i in range(len(rows))]
    tokens = torch.randn(6, length, 3)
    assert not cache.last_before("shift", tokens).any()
    cache.reorder(torch.tensor(rows))
    assert torch.equal(cache.last_before("shift", torch.zeros(len(rows), 1, 3)), tokens[rows, -1:])
    k, v = cache.keys_values()
    assert torch.equal(k, keys[rows])
    assert torch.equal(v, 2 * keys[rows])
    assert [k[i].data_ptr() for i in range(len(rows))] == kept_at
    more = torch.randn(len(rows), 2, 1, 3)
    assert torch.equal(cache.append(more, more)[0], torch.cat([keys[rows], more], 2))
