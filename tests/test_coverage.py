"""What a tokenizer loses of a text is counted, character by character."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from src.coverage import MeasuredTokenizer
from src.errors import InputError
from src.tokenization import (
    byte_tokenizer,
    character_tokenizer,
    train_bpe,
    train_unigram,
    train_wordpiece,
    vocabulary_size,
)
from tests.outside import LETTERS, letters_with_gaps, llama_like, pieces_with_gaps, some_bytes, without_unknown

TEXTS = ["The cat sat on the mat, again and again. " * 3]
COMPLETE = [byte_tokenizer(), train_bpe(TEXTS, 270), train_unigram(TEXTS, 270), llama_like()]
SOME = "aböü猫🙂"
LOSSY = [without_unknown(SOME), some_bytes(SOME), character_tokenizer([SOME]), letters_with_gaps(SOME)]
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
mixed_text = st.text(st.sampled_from(f"{SOME}xyßŒ字🙃  "), max_size=40)


@pytest.mark.parametrize("tokenizer", COMPLETE)
@settings(max_examples=50, deadline=None)
@given(text=any_text)
def test_nothing_is_lost_of_any_text_where_every_byte_has_a_token(tokenizer, text):
    measured = MeasuredTokenizer(tokenizer, "here")
    (encoding,) = measured.encode([text])
    assert not measured.lost
    assert measured.coverage == 1
    assert measured.losses() is None
    assert encoding.ids == tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("tokenizer", LOSSY)
@settings(max_examples=50, deadline=None)
@given(texts=st.lists(mixed_text, max_size=3))
def test_the_characters_that_are_not_in_the_vocabulary_are_lost(tokenizer, texts):
    measured = MeasuredTokenizer(tokenizer, "here")
    encodings = measured.encode(texts)
    text = "".join(texts)
    # of 字, ß and Œ all bytes, or all but one, may be among those of other characters
    known = set(SOME) | {c for c in text if tokenizer is LOSSY[1] and not missing(c)} | {" "}
    assert measured.lost == Counter(c for c in text if c not in known)
    assert measured.lost_bytes == sum(len(c.encode()) for c in text if c not in known)
    assert measured.coverage == 1 - measured.lost.total() / max(len(text), 1)
    for encoding in encodings:
        assert all(0 <= i < vocabulary_size(tokenizer) for i in encoding.ids)


@pytest.mark.parametrize("tokenizer", [*LOSSY, pieces_with_gaps(["a", "##b", "ab", "猫"]), train_wordpiece(TEXTS, 60)])
@settings(max_examples=50, deadline=None)
@given(texts=st.lists(mixed_text | any_text, max_size=3))
def test_a_look_at_ids_and_characters_finds_all_that_offsets_tell(tokenizer, texts):
    quick, slow = MeasuredTokenizer(tokenizer, "here"), MeasuredTokenizer(tokenizer, "here")
    slow._is_by_character = False
    for text in texts:
        quick.encode([text])
    slow.encode(texts)
    assert quick.counts == slow.counts


def missing(character: str) -> set[int]:
    return set(character.encode()) - set(SOME.encode())


def test_words_that_are_unknown_are_lost_and_accents_that_are_stripped_are_not():
    measured = MeasuredTokenizer(pieces_with_gaps(["schon", "cafe"]), "here")
    measured.encode(["Schön café, schon"])
    assert measured.lost == Counter(",")
    measured.encode(["cafe o\u0308x"])
    assert measured.lost == Counter(",ox")


def test_characters_that_a_tokenizer_cuts_out_are_lost():
    tokenizer = character_tokenizer(["ab-"])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split("-", "removed"), tokenizer.pre_tokenizer])
    measured = MeasuredTokenizer(tokenizer, "here")
    measured.encode(["a-b-"])
    assert measured.lost == Counter("--")


def test_below_99_percent_is_refused_with_the_characters_and_what_to_do():
    measured = MeasuredTokenizer(without_unknown(LETTERS), "the train split")
    measured.encode(["a" * 990, "ß" * 10])
    measured.check()
    assert measured.losses().startswith(
        "the tokenizer cannot represent 10 of 1,000 characters of the train split ('ß' 10)"
    )
    measured.encode(["ß"])
    with pytest.raises(InputError, match=r"11 of 1,001 characters of the train split \('ß' 11\).*more than 1%: take a"):
        measured.check()


@pytest.mark.parametrize(
    "model", [models.WordLevel({"a": 0}), models.WordPiece({"a": 0}), models.Unigram([("a", 0.0)], None)]
)
def test_a_tokenizer_that_cannot_even_say_unknown_is_refused(model):
    with pytest.raises(InputError, match=r"the tokenizer cannot encode the train split \(.*unknown token"):
        MeasuredTokenizer(Tokenizer(model), "the train split").encode(["a", "b"])
