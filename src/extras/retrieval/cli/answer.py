"""rag answer: a GPT continues a prompt of the passages that were found (Lewis et al. 2020), and they are cited.

Without a GPT, or where it cites none of them, the best sentences of the passages are the answer.
"""

import re

import torch
from tokenizers import Tokenizer

from src.checkpoint import load_trained
from src.cli.verb import Fraction, NonNegative, NonNegativeFloat, Positive
from src.decoding.text import stream_text
from src.errors import InputError
from src.extras.retrieval.cli.search import SearchOptions, cited
from src.extras.retrieval.searcher import Hit, Mode, Searcher
from src.hardware import to_device
from src.models import GPT

SHORTEST = 16  # tokens of a passage that are worth giving
SENTENCES = 3  # that are shown of the passages


def answer(
    question: str,
    options: SearchOptions,
    checkpoint: str | None = None,
    mode: Mode | None = None,
    k: Positive = 4,
    min_similarity: float = 0.25,
    max_new_tokens: Positive = 64,
    temperature: NonNegativeFloat = 0.0,
    top_k: Positive | None = None,
    top_p: Fraction | None = None,
    seed: NonNegative = 0,
) -> None:
    """Answer a question from the passages that are found for it, as the text is decoded, and cite them.

    Without a GPT, or where its answer cites no passage, their best sentences are shown.

    Args:
        question: what to ask
        checkpoint: a checkpoint of a GPT; without: the best sentences
        mode: words, vectors, or both (hybrid, if there are vectors)
        k: passages to give it at most
        min_similarity: cosine of what is relevant
        max_new_tokens: at most
        temperature: 0 is greedy
        top_k: draw from the K likeliest tokens
        top_p: draw from the likeliest tokens that make up P
        seed: of the draws
    """
    mode = options.best_mode(mode)
    trained = load_trained(checkpoint, GPT) if checkpoint else None
    searcher = options.searcher(mode != "bm25")
    hits = searcher.search(question, mode, k, options.candidates)
    hits = [hit for hit in hits if is_relevant(hit, min_similarity)]
    if not hits:
        print("Nothing relevant was found in the index: there is no answer.")
        return
    if trained is None:
        print("There is no --checkpoint to answer: these are the best sentences that were found.\n")
        _print_sentences(searcher, question, hits)
        _print_sources(hits)
        return
    model, tokenizer, special_tokens = trained
    room = model.config.max_seq_len - max_new_tokens
    if room < 1:
        raise InputError(
            f"--max-new-tokens {max_new_tokens} fills the context of {model.config.max_seq_len}: take fewer"
        )
    prompt, sources = make_prompt(question, hits, tokenizer, room)
    eos = tokenizer.token_to_id(special_tokens["eos_token"])
    assert eos is not None
    pieces = stream_text(
        model,
        tokenizer,
        prompt,
        eos_id=eos,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        generator=torch.Generator(to_device(model, options.device)).manual_seed(seed),
    )
    text = ""
    for piece in pieces:
        print(piece, end="", flush=True)
        text += piece
    print()
    if not cites(text, len(sources)):
        print("\nThe answer cites none of the passages: take their best sentences instead.\n")
        _print_sentences(searcher, question, sources)
    _print_sources(sources)


def cites(text: str, n: int) -> bool:
    """Tell whether a text names one of ``n`` passages by its number, as in [1]."""
    return any(1 <= int(number) <= n for number in re.findall(r"\[(\d{1,3})\]", text))


def _print_sentences(searcher: Searcher, question: str, hits: list[Hit]) -> None:
    for sentence, place in searcher.best_sentences(question, hits, SENTENCES):
        print(f"- {sentence} [{place + 1}]")


def _print_sources(hits: list[Hit]) -> None:
    print("\nSources:")
    for number, hit in enumerate(hits, 1):
        print(f"[{number}] {cited(hit)}")


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
            f"the question takes {len(ask)} of {room} tokens and leaves no room for a passage: shorten it, or take "
            "fewer --max-new-tokens"
        )
    return ids + ask, given


def is_relevant(hit: Hit, min_similarity: float) -> bool:
    """Whether a hit has to do with the query: its vector is near, or, where there are none, they share a word."""
    if "dense" in hit.scores:
        return hit.scores["dense"] >= min_similarity
    return hit.scores.get("bm25", 0.0) > 0
