"""Measures by hand and by their definitions, intervals that cover, and queries that are out of their documents."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data.sentences import split_sentences
from src.errors import InputError
from src.extras.retrieval.changing import add
from src.extras.retrieval.evaluation import bootstrap, evaluate, make_queries, measures, read_queries, relevant
from src.extras.retrieval.index import Index
from src.extras.retrieval.searcher import Searcher, load_reranker
from tests.extras.retrieval.conftest import documents, settings, write_checkpoint


@given(
    st.lists(st.integers(0, 30), unique=True, max_size=25),
    st.sets(st.integers(0, 30), min_size=1, max_size=4),
    st.sampled_from([5, 20]),
)
def test_measures_are_what_they_are_defined_to_be(ranked, answers, depth):
    gains = [number in answers for number in ranked]
    ideal = sum(1 / np.log2(i + 2) for i in range(min(10, len(answers))))
    expected = {
        f"recall@{depth}": sum(gains[:depth]) / len(answers),
        "MRR@10": next((1 / rank for rank, hit in enumerate(gains[:10], 1) if hit), 0.0),
        "nDCG@10": sum(hit / np.log2(i + 2) for i, hit in enumerate(gains[:10])) / ideal,
    }
    assert measures(ranked, answers, depth) == pytest.approx(expected, abs=1e-6)


def test_the_interval_covers_the_mean_it_was_drawn_for():
    """Of 100 samples with the mean 0.3, about 95% of the intervals hold it."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        estimate = bootstrap((rng.random(60) < 0.3).astype(float))
        assert estimate.low <= estimate.mean <= estimate.high
        held += estimate.low <= 0.3 <= estimate.high
    assert 0.88 <= held / 100 <= 0.99


def test_queries_are_sentences_taken_out_of_their_documents():
    given_ = documents(6)
    remaining, queries = make_queries(given_, every=5)
    assert len(queries) >= 6 * 3
    for document, rest in zip(given_, remaining, strict=True):
        taken = [query for query in queries if query.source == document.source]
        sentences = split_sentences(document.text)
        kept = rest.text.splitlines()
        assert len(kept) + len(taken) == len(sentences)
        again = list(kept)
        for number, query in enumerate(taken):  # put back at its gap, each is where it was
            again.insert(rest.text[: query.end - 1].count("\n") + number, query.text)
        assert again == sentences
    assert make_queries(given_, every=5) == (remaining, queries)


def test_the_answers_are_the_passages_around_the_gap(tmp_path):
    remaining, queries = make_queries(documents(4), every=6)
    add(tmp_path / "index", remaining, settings(), None)
    index = Index(tmp_path / "index")
    for query, answers in zip(queries, relevant(index, queries), strict=True):
        assert answers
        for number in index.numbers.tolist():
            source, start, end = index.span(number)
            touches = source == query.source and any(start <= place < end for place in range(query.start, query.end))
            assert touches == (number in answers)
    with pytest.raises(InputError, match="which is not in the index"):
        relevant(index, [queries[0]._replace(source="elsewhere")])


def test_evaluation_of_all_stages(tmp_path, encoder):
    remaining, queries = make_queries(documents(8), every=8)
    add(tmp_path / "index", remaining, settings(encoder), encoder)
    reranker = load_reranker(write_checkpoint(tmp_path / "reranker.ckpt", "bert_classifier"))
    searcher = Searcher(Index(tmp_path / "index"), encoder, reranker)
    found = evaluate(searcher, queries, ("bm25", "dense", "hybrid"), "hybrid", candidates=20, depth=20)
    assert list(found.values) == ["bm25", "dense", "hybrid", "rerank"]
    answers = relevant(searcher.index, queries)
    for mode in ("bm25", "dense", "hybrid"):
        expected = [
            measures([hit.number for hit in Searcher(searcher.index, encoder).search(q.text, mode, 20)], a, 20)[
                "nDCG@10"
            ]
            for q, a in zip(queries, answers, strict=True)
        ]
        np.testing.assert_allclose(found.values[mode]["nDCG@10"], expected)
    # the reranker orders its candidates anew, and finds no others
    np.testing.assert_allclose(found.values["rerank"]["recall@20"], found.values["hybrid"]["recall@20"])
    difference = found.values["rerank"]["MRR@10"] - found.values["hybrid"]["MRR@10"]
    assert found.gains("hybrid")["MRR@10"].mean == pytest.approx(difference.mean())
    assert all(median <= high for median, high in found.milliseconds().values())


def test_queries_that_cannot_be_read(tmp_path):
    path = tmp_path / "queries.jsonl"
    row = {"query": "who?", "source": "a", "start": 1, "end": 4}
    for text, message in [
        ("\n\n", "has no queries"),
        (json.dumps(row) + "\nnothing\n", "line 2 of"),
        (json.dumps({"query": "who?"}), "line 1 of"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_queries(path)
    path.write_text(json.dumps(row))
    assert read_queries(path)[0].end == 4
