"""rag answer: answer a question from what is found for it."""

from src.cli.verb import Fraction, NonNegative, NonNegativeFloat, Positive
from src.extras.retrieval.cli.search import SearchOptions, cited
from src.extras.retrieval.index_files import Mode


def answer(
    checkpoint: str,
    question: str,
    options: SearchOptions,
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

    Args:
        checkpoint: a checkpoint of a GPT
        question: what to ask
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
    from src.extras.retrieval.answers import answer_from, is_relevant
    from src.hardware import to_device
    from src.models import GPT

    mode = options.best_mode(mode)
    writer = Writer(*load_trained(checkpoint, GPT))
    hits = options.searcher(mode != "bm25").search(question, mode, k, options.candidates)
    hits = [hit for hit in hits if is_relevant(hit, min_similarity)]
    if not hits:
        print("Nothing relevant was found in the index: there is no answer.")
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
    for piece in pieces:
        print(piece, end="", flush=True)
    print("\n\nSources:")
    for number, hit in enumerate(sources, 1):
        print(f"[{number}] {cited(hit)}")
