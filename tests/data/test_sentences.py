"""Sentence splitting."""

from hypothesis import given
from hypothesis import strategies as st

from src.data.sentences import split_sentences


def test_sentences_keep_their_punctuation():
    text = 'It rained. "Did it?" he asked. It did! Then (at last.) The sun came out… 1984 was dry. so they say'
    assert split_sentences(text) == [
        "It rained.",
        '"Did it?" he asked.',
        "It did!",
        "Then (at last.)",
        "The sun came out… 1984 was dry. so they say",
    ]


def test_abbreviations_initials_and_numbers_end_no_sentence():
    text = "Dr. J. R. R. Smith vs. Mr. Jones paid 3.5 dollars, e.g. Monday, in the U.S. Army. Then he left."
    assert split_sentences(text) == [
        "Dr. J. R. R. Smith vs. Mr. Jones paid 3.5 dollars, e.g. Monday, in the U.S. Army.",
        "Then he left.",
    ]


def test_a_line_break_ends_a_sentence():
    assert split_sentences("History\n\n  It began.  It went on\nand ended.\n") == [
        "History",
        "It began.",
        "It went on",
        "and ended.",
    ]


@given(st.text(alphabet="Ab. !?\"'()\n1é", max_size=60))
def test_no_character_but_space_is_lost(text):
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() and sentence for sentence in sentences)
