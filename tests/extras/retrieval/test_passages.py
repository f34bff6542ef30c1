"""Passages: every word in one, none across documents, cut between words, as many tokens as asked for."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.extras.retrieval.passages import split_passages, word_tokenizer
from src.tokenization import train_wordpiece
from tests.conftest import WORDS

WORDPIECE = train_wordpiece([" ".join(WORDS)], 60)  # small: words are cut into several pieces
TEXTS = st.lists(
    st.lists(st.sampled_from([*WORDS, "naïve", "日本", "…", "\n", "  "]), max_size=60).map(" ".join), max_size=4
)


@pytest.mark.parametrize("tokenizer", [word_tokenizer(), WORDPIECE], ids=["words", "pieces"])
@given(texts=TEXTS, size=st.integers(8, 20), overlap=st.integers(0, 7))
def test_passages_cover_the_words_of_each_document(tokenizer, texts, size, overlap):
    found = split_passages(texts, tokenizer, size, overlap)
    assert len(found) == len(texts)
    for text, spans in zip(texts, found, strict=True):
        covered = [False] * len(text)
        for start, end in spans:
            assert 0 <= start < end <= len(text)
            assert len(tokenizer.encode(text[start:end], add_special_tokens=False).ids) <= size
            covered[start:end] = [True] * (end - start)
            for place in (start, end):  # between words
                assert not (0 < place < len(text) and text[place - 1].isascii() and text[place].isascii()) or not (
                    text[place - 1].isalpha() and text[place].isalpha()
                )
        assert all(covered[i] or text[i].isspace() for i in range(len(text)))
        assert [start for start, _ in spans] == sorted({start for start, _ in spans})


def test_neighbours_share_the_overlap():
    text = " ".join(f"w{i}" for i in range(100))
    (spans,) = split_passages([text], word_tokenizer(), 20, 5)
    pieces = [text[start:end].split() for start, end in spans]
    assert [len(piece) for piece in pieces] == [20] * 6 + [10]
    for one, following in pairwise(pieces):
        assert one[-5:] == following[:5]


@pytest.mark.parametrize("text", ["水是生命之源。" * 30, "สวัสดีครับผมชื่อสมชาย" * 10, "これはペンです" * 20])
def test_text_without_spaces_is_counted_by_its_letters(text):
    (spans,) = split_passages([text], word_tokenizer(), 40, 0)
    assert "".join(text[start:end] for start, end in spans) == text
    assert len(spans) > 2
    assert all(end - start <= 80 for start, end in spans)


def test_a_word_longer_than_a_passage_is_cut():
    (spans,) = split_passages(["stonestonestonestone"], WORDPIECE, 2, 1)
    assert spans[0][0] == 0
    assert spans[-1][1] == 20
