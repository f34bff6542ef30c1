"""Tokenizers lose nothing, are the same each time, and refuse what they cannot be."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from src.errors import InputError
from src.tokenization import (
    END_OF_TEXT,
    UNKNOWN,
    byte_tokenizer,
    character_tokenizer,
    load_tokenizer,
    make_tokenizer,
    require_token,
    text_ids,
    tokenizer_text,
    train_bpe,
    train_wordpiece,
    vocabulary_size,
)
from tests.outside import pieces_with_gaps

TEXTS = ["The cat sat on the mat, again and again.\n", "Ein naïver Café-Besuch – über 3\u00a0€\r\n\tund 猫."] * 5
BPE, BYTES = train_bpe(TEXTS, 300), byte_tokenizer()
ALPHABET = sorted(set("".join(TEXTS)))
CHARACTERS = character_tokenizer(TEXTS)
any_text = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: END_OF_TEXT not in text)


def round_trip(tokenizer: Tokenizer, text: str) -> str:
    return tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False)


@settings(max_examples=200, deadline=None)
@given(any_text)
def test_byte_level_tokenizers_lose_nothing_of_any_text(text):
    assert round_trip(BPE, text) == text
    assert round_trip(BYTES, text) == text


@given(any_text)
def test_bytes_are_one_token_each(text):
    assert len(BYTES.encode(text).ids) == len(text.encode())


@settings(deadline=None)
@given(st.text(st.sampled_from(ALPHABET)))
def test_characters_are_one_token_each_and_lose_nothing(text):
    ids = CHARACTERS.encode(text).ids
    assert len(ids) == len(text)
    assert round_trip(CHARACTERS, text) == text


def test_a_character_that_was_not_in_the_text_is_unknown():
    assert CHARACTERS.encode("a☃b").tokens == ["a", UNKNOWN, "b"]


def test_the_vocabulary_of_characters_is_those_of_the_text_and_two_more():
    assert vocabulary_size(CHARACTERS) == len(ALPHABET) + 2


def test_the_vocabulary_of_bpe_has_the_size_that_was_asked_for():
    corpus = [" ".join(f"word{i}" for i in range(400))]
    assert vocabulary_size(train_bpe(corpus, 500)) == 500


def test_bpe_learns_what_is_frequent():
    assert len(BPE.encode(" again").ids) < len(" again")
    assert len(BPE.encode(" xylem").ids) > len(BPE.encode(" again").ids)


def test_training_gives_the_same_tokenizer_each_time():
    assert train_bpe(TEXTS, 280).to_str() == train_bpe(TEXTS, 280).to_str()
    assert character_tokenizer(TEXTS).to_str() == character_tokenizer(reversed(TEXTS)).to_str()


@pytest.mark.parametrize("tokenizer", [BPE, BYTES, CHARACTERS])
def test_the_end_token_is_one_special_token(tokenizer):
    end = tokenizer.token_to_id(END_OF_TEXT)
    assert tokenizer.encode(f"at{END_OF_TEXT}a").ids[-2] == end
    assert tokenizer.decode([end]) == ""


@pytest.mark.parametrize("tokenizer", [BPE, BYTES, CHARACTERS])
def test_a_saved_tokenizer_is_the_same(tokenizer, tmp_path: Path):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        assert load_tokenizer(str(path)).encode(TEXTS[1]).ids == tokenizer.encode(TEXTS[1]).ids


def test_a_loaded_tokenizer_neither_pads_nor_truncates(tmp_path: Path):
    tokenizer = byte_tokenizer()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=6)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert len(load_tokenizer(str(tmp_path)).encode("abcdefgh").ids) == 8


def test_the_size_counts_ids_that_a_tokenizer_leaves_out():
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 7}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert vocabulary_size(tokenizer) == 8


def test_the_text_of_a_tokenizer_tells_whether_it_changed(tmp_path: Path):
    (tmp_path / "tokenizer.json").write_text("one")
    assert tokenizer_text(str(tmp_path)) == tokenizer_text(str(tmp_path / "tokenizer.json")) == "one"
    assert tokenizer_text("bpe") == ""


@pytest.mark.parametrize(
    ("content", "culprit"),
    [(None, "nowhere"), ("{ not json", "nowhere"), (json.dumps({"version": "1.0"}), "nowhere")],
)
def test_what_is_no_tokenizer_is_refused_by_name(tmp_path: Path, content, culprit):
    path = tmp_path / culprit
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=culprit) as refused:
        make_tokenizer(str(path), 300, TEXTS)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("size", [0, 100, 256])
def test_a_vocabulary_without_room_for_the_bytes_is_refused(size):
    with pytest.raises(InputError, match=str(size)):
        make_tokenizer("bpe", size, TEXTS)


def test_a_missing_end_token_is_refused_and_the_candidates_are_named():
    with pytest.raises(InputError, match=r"'</s>'.*end_token.*<\|endoftext\|>"):
        require_token(BPE, "</s>", "end_token")
    assert require_token(BPE, END_OF_TEXT, "end_token") == 0


# ---- WordPiece, uncased and cased

ENGLISH = ["The Cat sat on the mat in a house, again and again. " * 60 + "In a café."]
GERMAN = ["Schön ist es schon, die Größe der Bäume über den Hügeln zu sehen. " * 20]
PIECES = train_wordpiece(GERMAN, 80)


def test_a_trained_wordpiece_keeps_accents_and_case_but_of_english():
    assert train_wordpiece(GERMAN, 200).encode("Schön schon").tokens == ["Schön", "schon"]
    english = train_wordpiece(ENGLISH, 200)
    assert english.decode(english.encode("The CAFÉ").ids) == "the cafe"
    assert train_wordpiece(["Сегодня ёж пришёл, а ещё ежи. " * 20], 200).encode("ещё").tokens == ["ещё"]


@pytest.mark.parametrize("texts", [ENGLISH, GERMAN])
@pytest.mark.parametrize(("cased", "expected"), [(True, "Café"), (False, "cafe")])
def test_whether_it_keeps_them_can_be_chosen(texts, cased, expected):
    tokenizer = make_tokenizer("wordpiece", 200, [*texts, "Café cafe " * 3], cased)
    assert tokenizer.encode("Café").tokens == [expected]


@given(st.lists(st.sampled_from(GERMAN[0].replace(",", "").replace(".", "").split())).map(" ".join))
def test_cased_pieces_lose_nothing_but_the_form_of_spaces(text):
    ids = PIECES.encode(text).ids
    assert all(i in text_ids(PIECES) for i in ids)
    assert PIECES.decode(ids).split() == text.split()


def test_words_as_long_as_those_of_a_text_without_spaces_are_known():
    clause = "สวัสดีครับผมชื่อสมชายและผมชอบอ่านหนังสือ" * 4
    assert "[UNK]" not in train_wordpiece([clause], 200).encode(clause).tokens


def test_the_ids_of_text_are_those_of_tokens_that_are_there_and_not_special():
    tokenizer = pieces_with_gaps(["river", "bridge", "sea"], 100)
    assert text_ids(tokenizer) == [5, 7, 106]
    assert text_ids(BPE) == list(range(1, vocabulary_size(BPE)))
