"""Masks: their shares, what is never masked, and whole words."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.masking import Masking
from src.data.store import IGNORED

VOCABULARY, SPECIAL, MASK = 1000, 5, 4
MASKING = Masking(MASK, np.arange(SPECIAL, VOCABULARY))
WHOLE = Masking(MASK, np.arange(SPECIAL, VOCABULARY), whole_words=True)


def sequence(rng: np.random.Generator, length: int):
    """Ordinary ids with special ones at both ends and inside, and words of 1 to 4 tokens."""
    ids = rng.integers(SPECIAL, VOCABULARY, length)
    maskable = np.ones(length, dtype=bool)
    maskable[[0, length // 2, length - 1]] = False
    ids[~maskable] = 3
    word_starts = rng.random(length) < 0.6
    word_starts[[0, 1, length // 2, length // 2 + 1]] = True
    return ids, maskable, word_starts


def within_three_errors(count: int, of: int, share: float) -> bool:
    return abs(count / of - share) < 3 * math.sqrt(share * (1 - share) / of)


@pytest.mark.parametrize("masking", [MASKING, WHOLE], ids=["tokens", "whole words"])
def test_shares_over_100000_tokens(masking):
    rng = np.random.default_rng(0)
    real = predicted = hidden = kept = 0
    while real < 100_000:
        ids, maskable, word_starts = sequence(rng, int(rng.integers(20, 129)))
        masked, labels = masking.apply(ids, maskable, word_starts, rng)
        chosen = labels != IGNORED
        real += maskable.sum()
        predicted += chosen.sum()
        hidden += (masked[chosen] == MASK).sum()
        kept += (masked[chosen] == ids[chosen]).sum()
    assert within_three_errors(predicted, real, 0.15)
    assert within_three_errors(hidden, predicted, 0.8)
    # a random replacement is the original once in a thousand
    assert within_three_errors(kept, predicted, 0.1 + 0.1 / (VOCABULARY - SPECIAL))


@settings(max_examples=200, deadline=None)
@given(st.integers(4, 200), st.integers(0, 10**6), st.booleans())
def test_every_sequence(length, seed, whole_words):
    masking = WHOLE if whole_words else MASKING
    ids, maskable, word_starts = sequence(np.random.default_rng(seed), length)
    masked, labels = masking.apply(ids, maskable, word_starts, np.random.default_rng(seed))
    chosen = labels != IGNORED
    assert not chosen[~maskable].any()
    assert (labels[chosen] == ids[chosen]).all()
    assert (masked[~chosen] == ids[~chosen]).all()
    assert np.isin(masked[chosen], [MASK, *range(SPECIAL, VOCABULARY)]).all()
    assert chosen.sum() <= masking.most(length)
    if whole_words:
        words = np.cumsum(word_starts)[maskable]
        for word in np.unique(words):
            assert len(set(chosen[maskable][words == word])) == 1
    else:
        assert chosen.sum() >= 1
    again = masking.apply(ids, maskable, word_starts, np.random.default_rng(seed))
    assert (again[0] == masked).all()


def test_every_position_is_as_likely():
    counts = np.zeros(40)
    for seed in range(4000):
        ids, maskable, word_starts = sequence(np.random.default_rng(0), 40)
        counts += MASKING.apply(ids, maskable, word_starts, np.random.default_rng(seed))[1] != IGNORED
    share = counts[maskable] / 4000
    assert abs(share - 0.15).max() < 4 * math.sqrt(0.15 * 0.85 / 4000)


def test_a_sequence_of_special_tokens_has_no_target():
    ids = np.array([2, 3, 3])
    masked, labels = MASKING.apply(ids, np.zeros(3, dtype=bool), np.ones(3, dtype=bool), np.random.default_rng(0))
    assert (masked == ids).all()
    assert (labels == IGNORED).all()
