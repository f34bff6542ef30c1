"""rag queries, rag mine, rag eval: queries out of documents, rows to train on, and how well passages are found."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.cli.parser import positive, seed
from src.errors import InputError
from src.extras.retrieval.cli.search import (
    add_index_options,
    add_mode,
    add_search_options,
    find_mode,
    open_index,
    open_searcher,
)

if TYPE_CHECKING:
    from src.extras.retrieval.evaluation import Evaluation


def add_parsers(parts: Any) -> None:
    """The options of `rag queries` and `rag eval`."""
    make = parts.add_parser(
        "queries",
        description="Make queries without labels: sentences taken out of documents, each answered by the passage that "
        "it was taken out of. Writes documents.jsonl, to be indexed, and queries.jsonl, for rag eval.",
    )
    make.add_argument("--input", default="wikipedia", metavar="SOURCE", help="as data.source of a run (%(default)s)")
    make.add_argument("--split", default="test", help="train, validation or test (%(default)s)")
    make.add_argument("--validation-fraction", type=float, default=0.1, help="as of the run (%(default)s)")
    make.add_argument("--test-fraction", type=float, default=0.2, help="as of the run (%(default)s)")
    make.add_argument("--every", type=positive, default=6, metavar="N", help="sentences a query (%(default)s)")
    make.add_argument("--seed", type=seed, default=0, help="another seed takes other sentences out (%(default)s)")
    make.add_argument("--output", required=True, type=Path, metavar="DIR", help="where to write")
    make.set_defaults(run=run_queries)
    mine = parts.add_parser(
        "mine",
        description="Mine hard negatives: what a search finds for queries and does not answer them. Writes labelled "
        "rows of a query, a positive and negatives, which train the reranker or the retriever.",
    )
    add_index_options(mine)
    mine.add_argument("--queries", required=True, type=Path, metavar="FILE", help="as rag queries writes them")
    add_mode(mine)
    mine.add_argument("--depth", type=positive, default=20, metavar="N", help="passages of a list (%(default)s)")
    mine.add_argument("--output", required=True, type=Path, metavar="FILE", help="a .jsonl file for the rows")
    mine.set_defaults(run=run_mine)
    measure = parts.add_parser(
        "eval", description="Recall, MRR and nDCG of each stage with 95%% bootstrap intervals, and the time of a query."
    )
    add_search_options(measure)
    measure.add_argument("--queries", required=True, type=Path, metavar="FILE", help="as rag queries writes them")
    measure.add_argument(
        "--mode", default="hybrid", choices=("bm25", "dense", "hybrid"), help="the list to rerank (%(default)s)"
    )
    measure.add_argument("--depth", type=positive, default=50, metavar="N", help="of recall (%(default)s)")
    measure.add_argument("--limit", type=positive, metavar="N", help="the first N queries alone")
    measure.add_argument("--output", type=Path, metavar="FILE", help="a .json file for the figures")
    measure.set_defaults(run=run_eval)


def run_queries(options: argparse.Namespace) -> None:
    """Write documents without the sentences that are the queries, and those."""
    from src.atomic import write_text
    from src.data.corpora import Corpus, documents
    from src.extras.retrieval.documents import Document
    from src.extras.retrieval.queries import make_queries

    shares = {"validation_fraction": options.validation_fraction, "test_fraction": options.test_fraction}
    splits = Corpus(options.input, **shares).splits(Path(".cache"))
    if options.split not in splits:
        raise InputError(f"{options.input} has no split {options.split!r}: it has {', '.join(splits)}")
    texts = list(documents(splits[options.split]))
    # a title is the first line; a number tells those of one title apart
    titles = [text.strip().split("\n")[0][:60] for text in texts]
    named = [Document(f"{i}: {title}", text) for i, (title, text) in enumerate(zip(titles, texts, strict=True))]
    remaining, queries = make_queries(named, options.every, options.seed)
    if not queries:
        raise InputError(f"the {options.split} split of {options.input} has no run of {options.every} sentences")
    options.output.mkdir(parents=True, exist_ok=True)
    for name, rows in (("documents", remaining), ("queries", queries)):
        fields = [row._asdict() for row in rows]
        if name == "queries":
            fields = [{"query": field.pop("text"), **field} for field in fields]
        write_text(options.output / f"{name}.jsonl", "".join(json.dumps(field) + "\n" for field in fields))
    print(
        f"{options.output}: {len(queries):,} queries out of {len(remaining):,} documents of the {options.split} split"
    )


def run_mine(options: argparse.Namespace) -> None:
    """Write labelled rows with what the search found as negatives."""
    from src.atomic import write_text
    from src.extras.retrieval.evaluation import read_queries
    from src.extras.retrieval.mining import mine
    from src.extras.retrieval.search import Searcher
    from src.files import check_folder_of

    check_folder_of(options.output)
    queries = read_queries(options.queries)
    mode = find_mode(options)
    searcher = Searcher(*open_index(options, mode != "bm25"))
    rows = list(mine(searcher, queries, mode, options.depth))
    if not rows:
        raise InputError(f"nothing was found in {options.index} beside the answers of {options.queries}")
    write_text(options.output, "".join(json.dumps(row._asdict()) + "\n" for row in rows))
    print(f"{options.output}: {len(rows):,} rows out of {len(queries):,} queries")


def run_eval(options: argparse.Namespace) -> None:
    """Print a table of all stages, and write it if asked to."""
    from src.atomic import write_text
    from src.extras.retrieval.evaluation import evaluate, read_queries
    from src.files import check_folder_of

    if options.output:
        check_folder_of(options.output)
    queries = read_queries(options.queries)[: options.limit]
    searcher = open_searcher(options, True)
    modes: Any = ("bm25", "dense", "hybrid") if searcher.encoder else ("bm25",)
    reranked: Any = options.mode if searcher.encoder else "bm25"
    found = evaluate(searcher, queries, modes, reranked, options.candidates, options.depth)
    print(f"{len(queries):,} queries, {len(searcher.index):,} passages")
    _show(found, reranked)
    if options.output:
        figures = {
            "queries": len(queries),
            "passages": len(searcher.index),
            "measures": {stage: {m: e._asdict() for m, e in of.items()} for stage, of in found.estimates().items()},
            "gains": {m: e._asdict() for m, e in found.gains(reranked).items()} if searcher.reranker else {},
            "milliseconds": found.milliseconds(),
        }
        write_text(options.output, json.dumps(figures, indent=1) + "\n")


def _show(found: "Evaluation", reranked: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 1))
    measures = list(next(iter(found.values.values())))
    for heading in ("stage", *measures, "ms", "ms (95%)"):
        table.add_column(heading, justify="left" if heading == "stage" else "right", no_wrap=True)
    times = found.milliseconds()
    for stage, of in found.estimates().items():
        name = f"{reranked} + rerank" if stage == "rerank" else stage
        table.add_row(name, *(str(of[m]) for m in measures), *(f"{ms:.1f}" for ms in times[stage]))
    if "rerank" in found.values:
        gains = found.gains(reranked)
        table.add_row("gain of the reranker", *(str(gains[m]) for m in measures))
    Console(width=120).print(table)
