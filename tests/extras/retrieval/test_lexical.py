"""Words of any script, and passages that are found by them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.extras.retrieval.lexical import Lexical, Words, write_bm25

PASSAGES = {
    "zh": "北京是中华人民共和国的首都。",
    "zh river": "长江是亚洲最长的河流。",
    "ja": "これはペンです。東京タワー。",
    "th": "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย",
    "hi": "हिन्दी भारत की भाषा है।",
    "ko": "서울은 대한민국의 수도이다.",
    "en": "The capitals of rivers, in naïve prose.",
}


@pytest.fixture(scope="module")
def lexical(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bm25")
    write_bm25(Words("none").of(PASSAGES.values()), folder)
    return Lexical(folder, "none")


@pytest.mark.parametrize(
    ("query", "passage"),
    [
        ("首都", "zh"),
        ("河流", "zh river"),
        ("河", "zh river"),
        ("長い東京", "ja"),
        ("ペン", "ja"),
        ("เมืองหลวง", "th"),
        ("हिन्दी", "hi"),
        ("서울은", "ko"),
        ("rivers", "en"),
    ],
)
def test_a_word_is_found_in_any_script(lexical, query, passage):
    found, scores = lexical.search(query, 3)
    assert list(PASSAGES)[found[0]] == passage
    assert scores[0] > 0


def test_letters_and_their_pairs_where_there_are_no_spaces():
    (words,) = Words("none").of(["GPT大模型, हिन्दी ก็ x"])
    assert words == ["gpt", "大", "模", "型", "大模", "模型", "हिन्दी", "ก็", "x"]


@given(st.text(st.sampled_from("abc déf_12 .,-'\n"), max_size=40))
def test_words_of_scripts_with_spaces_are_runs_of_letters_and_digits(text):
    assert Words("none").of([text]) == [re.findall(r"\w+", text.lower())]
