"""Sentence splitting."""

import pytest
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("他来了。他走了！“真的？”她说。好", ["他来了。", "他走了！", "“真的？”", "她说。", "好"]),
        ("他说。“你好。”她问：「谁？」", ["他说。", "“你好。”", "她问：「谁？」"]),
        ("你好吗?我用.NET很好.他也好!3.中国", ["你好吗?", "我用.NET很好.", "他也好!", "3.中国"]),
        ("今日は。「元気？」はい．３．５です．", ["今日は。", "「元気？」", "はい．", "３．５です．"]),
        ("هل أنت هنا؟ نعم. أنا هنا.", ["هل أنت هنا؟", "نعم.", "أنا هنا."]),
        ("यह एक वाक्य है। यह दूसरा है।", ["यह एक वाक्य है।", "यह दूसरा है।"]),
        ("ይህ ነው። ያ ነው።", ["ይህ ነው።", "ያ ነው።"]),
        ("สวัสดีครับ ผมชื่อสมชาย คุณล่ะ", ["สวัสดีครับ", "ผมชื่อสมชาย", "คุณล่ะ"]),
        ("오늘은 춥다. 내일은? 좋다!", ["오늘은 춥다.", "내일은?", "좋다!"]),
        ("»Er kam.« Dann „ging er.“ Ja.", ["»Er kam.«", "Dann „ging er.“", "Ja."]),
    ],
    ids=["Chinese", "quotes", "marks of ASCII", "Japanese", "Arabic", "Hindi", "Amharic", "Thai", "Korean", "German"],
)
def test_sentences_of_any_script(text, expected):
    assert split_sentences(text) == expected


@given(st.text(alphabet="Ab中あก. 。！？؟“”「」1．ا\n", max_size=60))
def test_no_character_but_space_is_lost_of_any_script(text):
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() and sentence for sentence in sentences)
