"""rag search: the best passages for a query, with their scores and sources."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.cli.parser import fraction, positive

if TYPE_CHECKING:  # nothing heavy before it is known what is to be run
    from src.encoder import Encoder
    from src.extras.retrieval.index import Index
    from src.extras.retrieval.searcher import Searcher

SHOWN = 300  # characters of a passage


def add_index_options(options: argparse.ArgumentParser) -> None:
    """What every part that reads an index takes."""
    options.add_argument("--index", required=True, type=Path, metavar="DIR", help="what rag index made")
    options.add_argument(
        "--encoder", metavar="PATH", help="of the index; where it was when that was made, if not given"
    )
    options.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps, ... (%(default)s)")


def add_search_options(options: argparse.ArgumentParser) -> None:
    """What every part that searches with a reranker takes."""
    add_index_options(options)
    options.add_argument("--rerank", metavar="PATH", help="a checkpoint of a reranker, to order the candidates anew")
    options.add_argument(
        "--candidates", type=positive, default=50, metavar="N", help="passages that it reads (%(default)s)"
    )
    options.add_argument(
        "--rerank-weight",
        type=fraction,
        default=1.0,
        metavar="W",
        help="of its scores beside those of the search; 1: they alone (%(default)s)",
    )


def add_mode(options: argparse.ArgumentParser) -> None:
    """How candidates are found."""
    options.add_argument(
        "--mode", choices=("bm25", "dense", "hybrid"), help="words, vectors, or both (hybrid, if there are vectors)"
    )


def add_parsers(parts: Any) -> None:
    """The options of `rag search`."""
    options = parts.add_parser("search", description="Show the best passages for a query, with scores and sources.")
    add_search_options(options)
    add_mode(options)
    options.add_argument("--query", required=True, metavar="TEXT", help="what to look for")
    options.add_argument("--k", type=positive, default=5, metavar="N", help="passages to show (%(default)s)")
    options.set_defaults(run=run)


def open_index(options: argparse.Namespace, needs_vectors: bool) -> "tuple[Index, Encoder | None]":
    """The index, and its encoder if that is named or needed.

    Raises:
        InputError: one of them cannot be read, or the encoder is not that of the index.
    """
    from src.encoder import load_encoder
    from src.extras.retrieval.index import Index

    index = Index(options.index)
    path: str | None = options.encoder or index.settings.encoder
    encoder = None
    if path and (options.encoder or needs_vectors):
        encoder = load_encoder(path, options.device)
        index.check_encoder(encoder, path)
    return index, encoder


def open_searcher(options: argparse.Namespace, needs_vectors: bool) -> "Searcher":
    """The index with its encoder, and the reranker if one is named.

    Raises:
        InputError: as :func:`open_index`, or the reranker cannot be read.
    """
    from src.extras.retrieval.searcher import Searcher, load_reranker

    index, encoder = open_index(options, needs_vectors)
    reranker = load_reranker(options.rerank, options.device) if options.rerank else None
    return Searcher(index, encoder, reranker, options.rerank_weight)


def find_mode(options: argparse.Namespace) -> Any:
    """The mode that was asked for, or the best that the index has."""
    from src.extras.retrieval.index_files import read_manifest

    has_vectors = read_manifest(options.index).settings.dimension is not None
    return options.mode or ("hybrid" if has_vectors else "bm25")


def run(options: argparse.Namespace) -> None:
    """Print the hits, the best first."""
    mode = find_mode(options)
    searcher = open_searcher(options, mode != "bm25")
    hits = searcher.search(options.query, mode, options.k, options.candidates)
    for i, hit in enumerate(hits, 1):
        source, start, end, text = hit.passage
        scores = "  ".join(f"{name} {score:.4f}" for name, score in hit.scores.items())
        text = " ".join(text.split())
        print(f"{i}. {source} [{start:,}-{end:,}]  {scores}\n   {text[:SHOWN]}{'...' if len(text) > SHOWN else ''}")
    if not hits:
        print("nothing was found")
