"""Answers out of what was found: a GPT continues a prompt of the passages (Lewis et al. 2020), which are cited."""

import re
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer

from src.decoding import Writer, stream_text
from src.errors import InputError
from src.extras.retrieval.searcher import Hit

SHORTEST = 16  # tokens of a passage that are worth giving


def answer_from(
    hits: list[Hit], question: str, writer: Writer, max_new_tokens: int, **sampling: Any
) -> tuple[Iterator[str], list[Hit]]:
    """Answer a question from the passages of hits.

    Args:
        hits: the best first.
        question: to answer.
        writer: the GPT.
        max_new_tokens: of the answer at most.
        sampling: as `stream` of `src.decoding` takes it.

    Returns:
        The answer piece by piece, as it is decoded, and the hits that it was given, by their numbers 1, 2, ... in it.
    """
    room = writer.model.config.max_seq_len - max_new_tokens
    if room < 1:
        raise InputError(
            f"max_new_tokens is {max_new_tokens}, which fills the context of {writer.model.config.max_seq_len}: take "
            "fewer"
        )
    prompt, sources = make_prompt(question, hits, writer.tokenizer, room - len(writer.start))
    settings = {"eos_id": writer.eos, "max_new_tokens": max_new_tokens, **sampling}
    return stream_text(writer.model, writer.tokenizer, [*writer.start, *prompt], **settings), sources


def make_prompt(question: str, hits: list[Hit], tokenizer: Tokenizer, room: int) -> tuple[list[int], list[Hit]]:
    """Write the best passages that fit, numbered, and the question behind them, in ``room`` tokens at most.

    The last passage that is given may be cut; a question that leaves no room for one is refused.

    Returns:
        The tokens, and the hits whose passages are in them, by the numbers 1, 2, ... that they have there.
    """
    ask = tokenizer.encode(f"Question: {' '.join(question.split())}\nAnswer:", add_special_tokens=False).ids
    left = room - len(ask)
    ids: list[int] = []
    given = []
    for number, hit in enumerate(hits, 1):
        text = f"[{number}] {' '.join(hit.passage.text.split())}\n\n"
        passage = tokenizer.encode(text, add_special_tokens=False).ids
        if len(passage) > left:
            end = tokenizer.encode("\n\n", add_special_tokens=False).ids
            if left - len(end) < SHORTEST:
                break
            passage = passage[: left - len(end)] + end
        ids += passage
        left -= len(passage)
        given.append(hit)
    if not given:
        raise InputError(
            f"the question takes {len(ask)} of {room} tokens and leaves no room for a passage: shorten it, or lower "
            "max_new_tokens"
        )
    return ids + ask, given


def is_relevant(hit: Hit, min_similarity: float) -> bool:
    """Whether a hit has to do with the query: its vector is near, or, where there are none, they share a word."""
    if "dense" in hit.scores:
        return hit.scores["dense"] >= min_similarity
    return hit.scores.get("bm25", 0.0) > 0


def cites(text: str, n: int) -> bool:
    """Tell whether a text names one of ``n`` passages by its number, as in [1]."""
    return any(1 <= int(number) <= n for number in re.findall(r"\[(\d{1,3})\]", text))
