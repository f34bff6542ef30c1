"""Sentence pairs: what they are cut from, that they are balanced, that only their relation gives them away."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.seekable import uniforms
from src.data.sentences import DRAWS, SentencePairs, SentenceTokens


def documents(lengths: list[list[int]]) -> SentenceTokens:
    """Documents of sentences of the given lengths; each token is its own position."""
    flat = [n for document in lengths for n in document]
    sentences = np.cumsum([0, *flat])
    return SentenceTokens(
        np.arange(sentences[-1]),
        np.ones(sentences[-1], dtype=bool),
        sentences,
        np.cumsum([0, *[len(document) for document in lengths]]),
    )


def n_tokens(pair) -> int:
    return pair.first.stop - pair.first.start + pair.second.stop - pair.second.start


class Pair(NamedTuple):
    first: slice
    second: slice
    is_next: bool


def draw(pairs: SentencePairs, epoch: int = 0) -> list[Pair]:
    indices = np.arange(len(pairs))
    drawn = pairs.draw(indices, uniforms(0, np.full_like(indices, epoch), indices, DRAWS))
    return [
        Pair(slice(*first), slice(*second), bool(is_next))
        for (first, second), is_next in zip(np.stack(drawn[:2], 2).tolist(), drawn.is_next, strict=True)
    ]


LENGTHS = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=12), min_size=2, max_size=8).filter(
    lambda lengths: sum(len(document) > 1 for document in lengths) >= 2
)


@settings(max_examples=200, deadline=None)
@given(LENGTHS, st.integers(2, 60), st.integers(0, 1000))
def test_every_pair(lengths, room, epoch):
    data = documents(lengths)
    pairs = SentencePairs(data, room)
    token_of = data.sentences[data.documents]
    boundaries = set(data.sentences) - set(token_of)
    assert 1 <= len(pairs) <= len(boundaries)
    for pair in draw(pairs, epoch):
        first, second = pair.first, pair.second
        assert first.stop > first.start
        assert second.stop > second.start
        assert n_tokens(pair) <= room
        # A ends at a boundary and B begins at one: never a document's end or beginning
        assert first.stop in boundaries
        assert second.start in boundaries
        of_first, of_second = (
            {int(np.searchsorted(token_of, token, side="right")) for token in (s.start, s.stop - 1)}
            for s in (first, second)
        )
        assert len(of_first) == len(of_second) == 1  # no segment runs over a document's end
        assert pair.is_next == (first.stop == second.start)
        assert pair.is_next == (of_first == of_second)  # a negative is of another document


def test_labels_are_balanced_and_segments_fill_the_room():
    pairs = SentencePairs(documents([[10] * 300] * 20), room=100)
    drawn = draw(pairs)
    assert len(drawn) == 600
    positive = np.mean([pair.is_next for pair in drawn])
    assert abs(positive - 0.5) < 3 * 0.5 / np.sqrt(600)
    full = np.mean([n_tokens(pair) == 100 for pair in drawn])
    # a tenth is short by intention, 5% stand where their document ends
    assert 0.8 < full < 0.95
    switches = np.mean(np.diff([float(pair.is_next) for pair in drawn]) != 0)
    assert abs(switches - 0.5) < 0.1  # strictly alternating labels would be 1


def test_an_epoch_covers_the_corpus_and_the_next_draws_anew():
    data = documents([[10] * 300] * 20)
    pairs = SentencePairs(data, room=100)
    seen = np.zeros(len(data.tokens), dtype=bool)
    for pair in draw(pairs):
        seen[pair.first] = seen[pair.second] = True
    assert seen.mean() > 0.6
    first, second = draw(pairs, 0), draw(pairs, 1)
    assert np.mean([a == b for a, b in zip(first, second, strict=True)]) < 0.05
    assert first == draw(pairs, 0)


def test_lengths_do_not_tell_short_documents_apart():
    """Where documents are shorter than the room, a pair's length says where they end: the same under both labels."""
    rng = np.random.default_rng(0)
    pairs = SentencePairs(documents([list(rng.integers(3, 20, rng.integers(2, 8))) for _ in range(4000)]), room=100)
    drawn = draw(pairs) + draw(pairs, 1)
    labels = np.array([pair.is_next for pair in drawn])
    a, b = (
        np.array([s.stop - s.start for s in segments])
        for segments in zip(*[(p.first, p.second) for p in drawn], strict=True)
    )
    for lengths in (a, b, a + b, a - b, a * b):
        difference = lengths[labels].mean() - lengths[~labels].mean()
        error = lengths.std() / np.sqrt(len(lengths) / 4)
        assert abs(difference) < 4 * error


@pytest.mark.parametrize("lengths", [[[5], [7], [9]], [[5, 6, 7]], [[5, 6], [7]]])
def test_without_two_documents_of_two_sentences_there_are_no_pairs(lengths):
    with pytest.raises(ValueError, match="fewer than two documents have two sentences"):
        SentencePairs(documents(lengths), 20)
