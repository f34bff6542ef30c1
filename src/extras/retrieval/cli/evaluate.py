"""rag queries, rag mine, rag eval: queries out of documents, rows to train on, and how well passages are found."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from src.atomic import write_text
from src.cli.verb import NonNegative, Positive
from src.errors import InputError
from src.extras.retrieval.cli.search import IndexOptions, SearchOptions
from src.extras.retrieval.index_files import Mode
from src.files import check_folder_of

if TYPE_CHECKING:
    from src.extras.retrieval.evaluation import Evaluation


def queries(
    output: Path,
    input_: str = "wikipedia",
    split: str = "test",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    every: Positive = 6,
    seed: NonNegative = 0,
) -> None:
    """Make queries without labels: sentences taken out of documents, each answered by the passage it was taken out of.

    Writes documents.jsonl, to be indexed, and queries.jsonl, for rag eval.

    Args:
        output: the folder to write to
        input_: as data.source of a run
        split: train, validation or test
        validation_fraction: as of the run
        test_fraction: as of the run
        every: sentences a query
        seed: another seed takes other sentences out
    """
    # with Lightning and torch, for which help does not wait
    from src.data.corpora import Corpus, documents
    from src.extras.retrieval.evaluation import make_queries
    from src.extras.retrieval.passages import Document

    corpus = Corpus(input_, validation_fraction=validation_fraction, test_fraction=test_fraction)
    splits = corpus.splits(Path(".cache"))
    if split not in splits:
        raise InputError(f"{input_} has no split {split!r}: it has {', '.join(splits)}")
    texts = list(documents(splits[split]))
    # a title is the first line; a number tells those of one title apart
    named = [Document(f"{i}: {text.strip().split(chr(10))[0][:60]}", text) for i, text in enumerate(texts)]
    remaining, found = make_queries(named, every, seed)
    if not found:
        raise InputError(f"the {split} split of {input_} has no run of {every} sentences")
    output.mkdir(parents=True, exist_ok=True)
    rows = [{"query": fields.pop("text"), **fields} for fields in (query._asdict() for query in found)]
    _write_rows(output / "documents.jsonl", [document._asdict() for document in remaining])
    _write_rows(output / "queries.jsonl", rows)
    print(f"{output}: {len(found):,} queries out of {len(remaining):,} documents of the {split} split")


def mine(queries: Path, output: Path, options: IndexOptions, mode: Mode | None = None, depth: Positive = 20) -> None:
    """Mine hard negatives: what a search finds for queries and does not answer them.

    Writes labelled rows of a query, a positive and negatives, which train the reranker or the retriever.

    Args:
        queries: a file as rag queries writes it
        output: a .jsonl file for the rows
        mode: words, vectors, or both (hybrid, if there are vectors)
        depth: passages of a list
    """
    from src.extras.retrieval.evaluation import mine_negatives, read_queries
    from src.extras.retrieval.searcher import Searcher

    check_folder_of(output)
    asked = read_queries(queries)
    mode = options.best_mode(mode)
    rows = list(mine_negatives(Searcher(*options.open(mode != "bm25")), asked, mode, depth))
    if not rows:
        raise InputError(f"nothing was found in {options.index} beside the answers of {queries}")
    _write_rows(output, [row._asdict() for row in rows])
    print(f"{output}: {len(rows):,} rows out of {len(asked):,} queries")


def evaluate(
    queries: Path,
    options: SearchOptions,
    mode: Mode = "hybrid",
    depth: Positive = 50,
    limit: Positive | None = None,
    output: Path | None = None,
) -> None:
    """Print recall, MRR and nDCG of each stage with 95% bootstrap intervals, and the time of a query.

    Args:
        queries: a file as rag queries writes it
        mode: the list to rerank
        depth: of recall
        limit: the first N queries alone
        output: a .json file for the figures
    """
    from src.extras.retrieval import evaluation

    if output:
        check_folder_of(output)
    asked = evaluation.read_queries(queries)[:limit]
    searcher = options.searcher(needs_vectors=True)
    modes: tuple[Mode, ...] = ("bm25", "dense", "hybrid") if searcher.encoder else ("bm25",)
    reranked: Mode = mode if searcher.encoder else "bm25"
    found = evaluation.evaluate(searcher, asked, modes, reranked, options.candidates, depth)
    print(f"{len(asked):,} queries, {len(searcher.index):,} passages")
    _show(found, reranked)
    if output:
        figures = {
            "queries": len(asked),
            "passages": len(searcher.index),
            "measures": {stage: {m: e._asdict() for m, e in of.items()} for stage, of in found.estimates().items()},
            "gains": {m: e._asdict() for m, e in found.gains(reranked).items()} if searcher.reranker else {},
            "milliseconds": found.milliseconds(),
        }
        write_text(output, json.dumps(figures, indent=1) + "\n")


def _write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _show(found: "Evaluation", reranked: str) -> None:
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
