"""A prompt and its continuation are one text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.decoding import decode_continuation, encode_prompt
from src.tokenization import byte_tokenizer, character_tokenizer, train_bpe
from tests.conftest import WORDS
from tests.outside import LETTERS, llama_like, space_before, with_template

TEXTS = [" ".join(WORDS)]
TOKENIZERS = {
    "bpe": train_bpe(TEXTS, 300),
    "byte": byte_tokenizer(),
    "char": character_tokenizer([*TEXTS, LETTERS]),
    "llama": llama_like(),
    "space before": space_before(WORDS),
}
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None)
@given(text=texts, data=st.data())
def test_the_continuation_of_a_prompt_makes_the_whole_text(name, text, data):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text).ids
    cut = data.draw(st.integers(0, len(ids)))
    before = tokenizer.decode(ids[:cut])
    assert before + decode_continuation(tokenizer, ids[:cut], ids[cut:]) == text


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None)
@given(data=st.data())
def test_of_any_tokens_nothing_is_lost_or_written_twice(name, data):
    tokenizer = TOKENIZERS[name]
    some_ids = st.lists(st.integers(0, tokenizer.get_vocab_size() - 1), max_size=12)
    prompt, ids = data.draw(some_ids), data.draw(some_ids)
    whole = tokenizer.decode([*prompt, *ids])
    found = decode_continuation(tokenizer, prompt, ids)
    assert whole.endswith(found)
    # the last character of the prompt may not have been whole
    assert tokenizer.decode(prompt).startswith(whole[: len(whole) - len(found)])


def test_a_space_that_a_decoder_drops_before_a_text_is_kept_behind_a_prompt():
    tokenizer = llama_like()
    prompt, small = tokenizer.encode("The").ids, tokenizer.encode("small").ids
    assert decode_continuation(tokenizer, prompt, small) == " small"
    assert decode_continuation(tokenizer, [tokenizer.token_to_id("</s>")], small) == "small"


@pytest.mark.parametrize("name", ["llama", "space before"])
@given(text=texts)
def test_a_prompt_has_no_tokens_of_a_template(name, text):
    plain = TOKENIZERS[name]
    template = with_template(plain)
    assert template.encode(text).ids[-1] == 2
    assert encode_prompt(template, text, 2) == plain.encode(text).ids
    assert encode_prompt(template, "", 2) == [2]
