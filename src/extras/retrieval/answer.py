"""An answer by a language model that is given the passages that were found (Lewis et al. 2020)."""

from dataclasses import dataclass

from tokenizers import Tokenizer

from src.errors import InputError
from src.extras.retrieval.searcher import Hit

SHORTEST = 16  # tokens of a passage that are worth giving


@dataclass(frozen=True)
class Prompt:
    """What a language model continues.

    Args:
        ids: the tokens.
        cited: the hits whose passages are in it, by the numbers 1, 2, ... that they have there.
    """

    ids: list[int]
    cited: list[Hit]


def make_prompt(question: str, hits: list[Hit], tokenizer: Tokenizer, room: int) -> Prompt:
    """Write the best passages that fit, numbered, and the question behind them, in ``room`` tokens at most.

    The last passage that is given may be cut; a question that leaves no room for one is refused.
    """
    ask = tokenizer.encode(f"Question: {' '.join(question.split())}\nAnswer:", add_special_tokens=False).ids
    left = room - len(ask)
    ids: list[int] = []
    cited = []
    for number, hit in enumerate(hits, 1):
        text = f"[{number}] {' '.join(hit.passage.text.split())}\n\n"
        encoding = tokenizer.encode(text, add_special_tokens=False)
        passage = encoding.ids
        if len(passage) > left:
            end = tokenizer.encode("\n\n", add_special_tokens=False).ids
            if left - len(end) < SHORTEST:
                break
            passage = passage[: left - len(end)] + end
        ids += passage
        left -= len(passage)
        cited.append(hit)
    if not cited:
        raise InputError(
            f"the question takes {len(ask)} of {room} tokens and leaves no room for a passage: shorten it, or take "
            "fewer --max-new-tokens"
        )
    return Prompt(ids + ask, cited)


def is_relevant(hit: Hit, min_similarity: float) -> bool:
    """Whether a hit has to do with the query: its vector is near, or, where there are none, they share a word."""
    if "dense" in hit.scores:
        return hit.scores["dense"] >= min_similarity
    return hit.scores.get("bm25", 0.0) > 0
