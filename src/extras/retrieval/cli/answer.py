"""rag answer: a trained GPT continues a prompt of the passages that were found, and their sources are cited."""

import argparse
from typing import Any

from src.cli.parser import fraction, non_negative, positive, seed
from src.errors import InputError
from src.extras.retrieval.cli.search import add_mode, add_search_options, find_mode, open_searcher

NOTHING = "Nothing relevant was found in the index: there is no answer."


def add_parsers(parts: Any) -> None:
    """The options of `rag answer`."""
    options = parts.add_parser("answer", description="Answer a question from the passages that are found for it.")
    options.add_argument("--checkpoint", required=True, metavar="PATH", help="a checkpoint of a GPT")
    options.add_argument("--question", required=True, metavar="TEXT", help="what to ask")
    add_search_options(options)
    add_mode(options)
    options.add_argument("--k", type=positive, default=4, metavar="N", help="passages to give it at most (%(default)s)")
    options.add_argument(
        "--min-similarity", type=float, default=0.25, metavar="C", help="cosine of what is relevant (%(default)s)"
    )
    options.add_argument("--max-new-tokens", type=positive, default=64, metavar="N", help="at most (%(default)s)")
    options.add_argument("--temperature", type=non_negative, default=0.0, metavar="T", help="0 is greedy (%(default)s)")
    options.add_argument("--top-k", type=positive, metavar="K", help="draw from the K likeliest tokens")
    options.add_argument("--top-p", type=fraction, metavar="P", help="draw from the likeliest tokens that make up P")
    options.add_argument("--seed", type=seed, default=0, metavar="N", help="of the draws (%(default)s)")
    options.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the answer as it is decoded, and then its sources."""
    import torch

    from src.checkpoint import load_trained
    from src.decoding.text import stream_text
    from src.extras.retrieval.answer import is_relevant, make_prompt
    from src.hardware import to_device
    from src.models import GPT

    mode = find_mode(options)
    model, tokenizer, special_tokens = load_trained(options.checkpoint, GPT)
    searcher = open_searcher(options, mode != "bm25")
    hits = searcher.search(options.question, mode, options.k, options.candidates)
    hits = [hit for hit in hits if is_relevant(hit, options.min_similarity)]
    if not hits:
        print(NOTHING)
        return
    room = model.config.max_seq_len - options.max_new_tokens
    if room < 1:
        raise InputError(
            f"--max-new-tokens {options.max_new_tokens} fills the context of {model.config.max_seq_len}: take fewer"
        )
    prompt = make_prompt(options.question, hits, tokenizer, room)
    eos = tokenizer.token_to_id(special_tokens["eos_token"])
    assert eos is not None
    device = to_device(model, options.device)
    pieces = stream_text(
        model,
        tokenizer,
        prompt.ids,
        eos_id=eos,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        generator=torch.Generator(device).manual_seed(options.seed),
    )
    for piece in pieces:
        print(piece, end="", flush=True)
    print("\n\nSources:")
    for number, hit in enumerate(prompt.cited, 1):
        source, start, end, _ = hit.passage
        scores = "  ".join(f"{name} {score:.4f}" for name, score in hit.scores.items())
        print(f"[{number}] {source} [{start:,}-{end:,}]  {scores}")
