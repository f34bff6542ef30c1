"""Prompts that fit, sources that are those in the prompt, and text that streams as it decodes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.decoding import generate
from src.decoding.text import stream_text
from src.errors import InputError
from src.extras.retrieval.answers import cites, is_relevant, make_prompt
from src.extras.retrieval.index import Passage
from src.extras.retrieval.searcher import Hit
from src.models import GPT, GPTConfig
from src.tokenization import byte_tokenizer, train_bpe
from tests.extras.retrieval.conftest import TEXT

BPE = train_bpe(TEXT, 300)
HITS = [
    Hit(i, Passage(f"doc{i}", 0, 99, f"The answer {i}\nis {'very ' * i}long."), {"bm25": 3.0 - i}) for i in range(4)
]


@given(st.integers(0, 400), st.integers(1, 12))
def test_the_prompt_fits_and_cites_what_is_in_it(room, words):
    question = "where? " * words
    least = len(BPE.encode(f"Question: {question.strip()}\nAnswer:").ids)
    if room < least + 16 + len(BPE.encode("\n\n").ids):  # the shortest passage that is worth giving, and its end
        with pytest.raises(InputError, match="leaves no room for a passage"):
            make_prompt(question, HITS, BPE, room)
        return
    ids, cited = make_prompt(question, HITS, BPE, room)
    assert len(ids) <= room
    text = BPE.decode(ids)
    assert text.endswith(f"\n\nQuestion: {question.strip()}\nAnswer:")
    assert cited == HITS[: len(cited)]
    for i, hit in enumerate(HITS, 1):
        assert (f"[{i}] The answer" in text) == (hit in cited)
    for i, hit in enumerate(cited[:-1], 1):  # the last alone may be cut
        assert f"[{i}] {' '.join(hit.passage.text.split())}\n\n" in text
    if room > 350:
        assert len(cited) == 4


def test_relevance_is_by_the_vector_or_else_by_words():
    passage = Passage("a", 0, 1, "b")
    assert is_relevant(Hit(0, passage, {"dense": 0.4}), 0.3)
    assert not is_relevant(Hit(0, passage, {"dense": 0.2, "bm25": 9.0}), 0.3)
    assert is_relevant(Hit(0, passage, {"bm25": 0.1}), 0.3)
    assert not is_relevant(Hit(0, passage, {}), 0.3)


@pytest.mark.parametrize(
    ("text", "cited"), [("It is Bern [2].", True), ("[1][3]", True), ("Bern [0] [4] [x] [", False), ("", False)]
)
def test_an_answer_cites_passages_that_there_are(text, cited):
    assert cites(text, 3) is cited


@pytest.mark.parametrize("seed", range(2))
def test_pieces_join_to_the_text_and_are_whole_characters(seed):
    """Of a random network over bytes most are no characters by themselves."""
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    model = GPT(GPTConfig(tokenizer.get_vocab_size(), max_seq_len=64, d_model=16, n_heads=2, n_layers=1)).eval()
    prompt, settings = tokenizer.encode("né").ids, {"max_new_tokens": 60, "eos_id": 0, "temperature": 1.0}
    first, second = (torch.Generator().manual_seed(seed) for _ in range(2))
    pieces = list(stream_text(model, tokenizer, prompt, generator=first, **settings))
    (ids,) = generate(model, [prompt], generator=second, **settings)
    assert "".join(pieces) == tokenizer.decode(ids)
    assert len(pieces) > 5
