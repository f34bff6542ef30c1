"""Retrieval in BEIR's format: the figures are those of trec_eval on the same rankings."""

from statistics import fmean

import numpy as np
import pytest

from src.encoder import load_encoder
from src.errors import InputError
from src.extras.evaluation.beir import measures, rank, read_collection
from tests.extras.evaluation.conftest import sentence, write_rows


def write_collection(folder, n=30):
    """Documents with and without a title, queries, and graded relevance."""
    corpus = [{"_id": f"d{i}", "title": "" if i % 3 else sentence(i, 2), "text": sentence(i, 9)} for i in range(n)]
    write_rows(folder / "corpus.jsonl", corpus)
    # one has the id of a document, which is not to be found for it
    queries = [{"_id": f"q{i}" if i else "d4", "text": sentence(i, 4)} for i in range(8)]
    write_rows(folder / "queries.jsonl", queries)
    lines = ["query-id\tcorpus-id\tscore"]
    for i, query in enumerate(queries):
        lines += [f"{query['_id']}\td{(i * k * k + k) % n}\t{k % 3}" for k in range(1, 8)]
    lines += ["q7\td4\t0"]
    (folder / "qrels").mkdir()
    (folder / "qrels/test.tsv").write_text("\n".join(lines) + "\n")


def test_the_figures_are_those_of_trec_eval_on_the_same_rankings(evaluate, checkpoints, in_folder):
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="needs the package pytrec-eval-terrier")
    write_collection(in_folder / "nano/one")
    write_collection(in_folder / "nano/two", 17)
    record, _ = evaluate("bert", "--suite", "beir", "--data", "nano", "--depth", 12)
    found = {(score["task"], score["metric"]): score for score in record["scores"]}
    encoder = load_encoder(checkpoints["bert"])
    for name in ("one", "two"):
        collection = read_collection(in_folder / "nano" / name, "test")
        rankings = rank(encoder, collection, 12)
        assert "d4" not in rankings["d4"]
        run = {query: {d: float(-i) for i, d in enumerate(ranking)} for query, ranking in rankings.items()}
        judge = pytrec_eval.RelevanceEvaluator(collection.relevance, {"ndcg_cut.10", "recall.12"})
        values = judge.evaluate(run).values()
        first = {query: dict(sorted(of.items(), key=lambda one: -one[1])[:10]) for query, of in run.items()}
        reciprocal = pytrec_eval.RelevanceEvaluator(collection.relevance, {"recip_rank"}).evaluate(first).values()
        expected = {"nDCG@10": [v["ndcg_cut_10"] for v in values], "recall@12": [v["recall_12"] for v in values]}
        expected["MRR@10"] = [v["recip_rank"] for v in reciprocal]
        for metric, of_queries in expected.items():
            score = found[name, metric]
            assert score["value"] == pytest.approx(fmean(of_queries), abs=1e-6), metric
            assert score["low"] <= score["value"] <= score["high"]
            assert 0 < score["value"] < 1
    one, two, mean = (found[name, "nDCG@10"]["value"] for name in ("one", "two", "mean"))
    assert mean == pytest.approx((one + two) / 2)


def test_the_nearest_documents_are_ranked_by_their_cosines(checkpoints, in_folder):
    write_collection(in_folder / "one")
    collection, encoder = read_collection(in_folder / "one", "test"), load_encoder(checkpoints["bert"])
    rankings = rank(encoder, collection, 5)
    (query,) = encoder.vectors([collection.queries["q3"]])
    cosines = encoder.vectors(list(collection.documents.values())) @ query
    best = [list(collection.documents)[i] for i in np.argsort(-cosines)[:5]]
    assert rankings["q3"] == best
    assert measures(best, {best[0]: 2, best[1]: 1}, 5) == pytest.approx({"nDCG@10": 1, "recall@5": 1, "MRR@10": 1})
    assert measures(best, {"elsewhere": 1}, 5) == {"nDCG@10": 0, "recall@5": 0, "MRR@10": 0}


def test_what_cannot_be_read_is_refused_in_one_line(run, checkpoints, in_folder):
    write_collection(in_folder / "one")
    judged = (in_folder / "one/qrels/test.tsv").read_text()
    for file, content, message in [
        ("qrels/test.tsv", judged + "q3\td99\t1\n", "names the document 'd99', which is not in"),
        ("qrels/test.tsv", "a\tb\tc\nq3 d1 1\n", r"line 2 of .* is not query-id, corpus-id and score"),
        ("qrels/test.tsv", "a\tb\tc\nq3\td1\t0\n", "names no relevant document"),
        ("corpus.jsonl", '{"id": 1}\n', r"line 1 of .*corpus.jsonl is no JSON with _id and text"),
    ]:
        (in_folder / "one" / file).write_text(content)
        with pytest.raises(InputError, match=message):
            read_collection(in_folder / "one", "test")
    for name, options, message in [
        ("bert", ("--data", "nowhere"), "nowhere has no corpus.jsonl"),
        ("bert", ("--data", "one", "--split", "dev"), "there is no file one/qrels/dev.tsv"),
        ("gpt", ("--data", "one"), "holds a gpt: this needs one of bert"),
    ]:
        status, _, err = run("evaluate", "--checkpoint", checkpoints[name], "--suite", "beir", *options)
        assert (status, err.count("\n")) == (2, 1)
        assert message in err
