"""rag answer: answer a question from what is found for it, by a GPT or by the best sentences."""

from typing import TYPE_CHECKING

from src.cli.verb import Fraction, NonNegative, NonNegativeFloat, Positive
from src.extras.retrieval.cli.search import SearchOptions, cited
from src.extras.retrieval.index_files import Mode

if TYPE_CHECKING:
    from src.extras.retrieval.searcher import Hit, Searcher

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
    # with torch, for which help does not wait
    import torch

    from src.checkpoint import load_trained
    from src.decoding import Writer
    from src.extras.retrieval.answers import answer_from, cites, is_relevant
    from src.hardware import to_device
    from src.models import GPT

    mode = options.best_mode(mode)
    writer = Writer(*load_trained(checkpoint, GPT)) if checkpoint else None
    searcher = options.searcher(mode != "bm25")
    hits = searcher.search(question, mode, k, options.candidates)
    hits = [hit for hit in hits if is_relevant(hit, min_similarity)]
    if not hits:
        print("Nothing relevant was found in the index: there is no answer.")
        return
    if writer is None:
        print("There is no --checkpoint to answer: these are the best sentences that were found.\n")
        _print_sentences(searcher, question, hits)
        _print_sources(hits)
        return
    pieces, sources = answer_from(
        hits,
        question,
        writer,
        max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        generator=torch.Generator(to_device(writer.model, options.device)).manual_seed(seed),
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


def _print_sentences(searcher: "Searcher", question: str, hits: "list[Hit]") -> None:
    for sentence, place in searcher.best_sentences(question, hits, SENTENCES):
        print(f"- {sentence} [{place + 1}]")


def _print_sources(hits: "list[Hit]") -> None:
    print("\nSources:")
    for number, hit in enumerate(hits, 1):
        print(f"[{number}] {cited(hit)}")
