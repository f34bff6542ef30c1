"""Mined rows hold what the search finds and does not answer, and train as labelled rows do."""

import json

import pytest

from src.extras.retrieval.changing import add
from src.extras.retrieval.data.examples import RankingSource
from src.extras.retrieval.evaluation import make_queries, mine_negatives, relevant
from src.extras.retrieval.index import Index
from src.extras.retrieval.searcher import Searcher
from tests.extras.retrieval.conftest import documents, settings


@pytest.mark.parametrize("mode", ["bm25", "dense", "hybrid"])
def test_negatives_are_the_best_of_the_search_without_the_answers(tmp_path, encoder, mode):
    remaining, queries = make_queries(documents(6), every=6)
    add(tmp_path / "index", remaining, settings(encoder), encoder)
    searcher = Searcher(Index(tmp_path / "index"), encoder)
    rows = list(mine_negatives(searcher, queries, mode, depth=8))
    answers = relevant(searcher.index, queries)
    assert len(rows) == sum(map(len, answers))
    texts = {number: searcher.index.passage(number).text for number in searcher.index.numbers.tolist()}
    left = iter(rows)
    for query, own in zip(queries, answers, strict=True):
        hits = searcher.search(query.text, mode, 8)
        wrong = [hit.passage.text for hit in hits if hit.number not in own]
        for number in sorted(own):
            row = next(left)
            assert (row.query, row.positive, row.negatives) == (query.text, texts[number], wrong)


def test_other_seeds_take_other_sentences_out():
    first, second = (make_queries(documents(6), every=6, seed=seed)[1] for seed in (0, 1))
    assert {query.text for query in first} != {query.text for query in second}


def test_rows_are_read_as_labelled_ones(tmp_path, encoder):
    remaining, queries = make_queries(documents(6), every=6)
    add(tmp_path / "index", remaining, settings(encoder), encoder)
    rows = list(mine_negatives(Searcher(Index(tmp_path / "index"), encoder), queries, "hybrid", depth=8))
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row._asdict()) + "\n" for row in rows))
    source = RankingSource(str(path), None, ("query", "positive"), 0.0, 0.0)
    read = list(source.labelled(source.splits(tmp_path)["train"]))
    assert read == [tuple(row) for row in rows]
