"""Retrieval in BEIR's format: the figures are those of trec_eval on the same rankings."""

import gzip
import json
import os
import shutil
from statistics import fmean

import numpy as np
import pytest
from datasets import Dataset

from src.encoder import load_encoder
from src.errors import InputError
from src.extras.evaluation.beir import measures, rank
from src.extras.evaluation.beir_data import IDS, check_collection, find_collections, read_collection
from tests.extras.evaluation.conftest import sentence, write_rows


def write_collection(folder, n=30, one="d4"):
    """Documents with and without a title, queries, the first with the id ``one``, and graded relevance."""
    corpus = [{"_id": f"d{i}", "title": "" if i % 3 else sentence(i, 2), "text": sentence(i, 9)} for i in range(n)]
    write_rows(folder / "corpus.jsonl", corpus)
    # one has the id of a document, which is not to be found for it
    queries = [{"_id": f"q{i}" if i else one, "text": sentence(i, 4)} for i in range(8)]
    write_rows(folder / "queries.jsonl", queries)
    lines = ["query-id\tcorpus-id\tscore"]
    for i, query in enumerate(queries):
        lines += [f"{query['_id']}\td{(i * k * k + k) % n}\t{k % 3}" for k in range(1, 8)]
    lines += ["q7\td4\t0"]
    (folder / "qrels").mkdir()
    (folder / "qrels/test.tsv").write_text("\n".join(lines) + "\n")


def as_on_the_hub(folder, kind):
    """Write a collection anew as the hub has it: NanoBEIR's or mteb's Parquet with a README, or BEIR's packed lines."""
    collection = read_collection(str(folder))
    texts = {
        "corpus": [{"_id": i, "text": text} for i, text in collection.documents.items()],
        "queries": [{"_id": i, "text": text} for i, text in collection.queries.items()],
    }
    judged = [
        {"query-id": query, "corpus-id": document, "score": score}
        for query, of in collection.relevance.items()
        for document, score in of.items()
    ]
    shutil.rmtree(folder)
    if kind == "BEIR":  # whose relevance is a dataset of its own
        folder.mkdir()
        for name, rows in texts.items():
            with gzip.open(folder / f"{name}.jsonl.gz", "wt") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows))
        qrels = folder.with_name(f"{folder.name}-qrels")
        qrels.mkdir()
        lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row.values())) for row in judged)]
        (qrels / "test.tsv").write_text("\n".join(lines) + "\n")
        (qrels / "train.tsv").write_text(lines[0] + "\n")
        return
    if kind == "mteb":
        tables, configs = {**texts, "default": judged}, {"default": "qrels/test-*"}
    else:
        tables, configs = {**texts, "qrels": [{k: row[k] for k in IDS} for row in judged if row["score"]]}, {}
    readme = ["---", "configs:"]
    for name, rows in tables.items():
        path = configs.get(name, f"{name}/train-*")
        (folder / path).parent.mkdir(parents=True)
        Dataset.from_list(rows).to_parquet(folder / path.replace("*", "00000-of-00001.parquet"))
        split = path.partition("/")[2].partition("-")[0]
        readme += [f"- config_name: {name}", "  data_files:", f"  - split: {split}", f"    path: {path}"]
    if kind != "no README":
        (folder / "README.md").write_text("\n".join([*readme, "---", ""]))


@pytest.mark.parametrize("kind", ["NanoBEIR", "mteb", "BEIR", "no README"])
def test_the_formats_of_the_hub_are_read_as_beirs_own(in_folder, kind):
    write_collection(in_folder / "nano/one")
    expected = read_collection("nano/one")
    assert max(score for judged in expected.relevance.values() for score in judged.values()) == 2
    as_on_the_hub(in_folder / "nano/one", kind)
    assert find_collections("nano") == find_collections("nano/one") == ["nano/one"]
    checksum = check_collection("nano/one", None)
    found = read_collection("nano/one")
    assert found.documents == expected.documents
    assert found.queries == expected.queries
    if kind in ("NanoBEIR", "no README"):  # relevant or not
        judged = {query: {d: 1 for d, score in of.items() if score} for query, of in expected.relevance.items()}
        assert found.relevance == judged
    else:
        assert found.relevance == expected.relevance
    with pytest.raises(InputError, match="has no qrels for the split 'dev': it has"):
        read_collection("nano/one", "dev")
    (file,) = [*in_folder.glob("nano/one*/**/test*"), *in_folder.glob("nano/one/qrels/train*")]
    os.utime(file, (0, 0))
    assert check_collection("nano/one", None) != checksum


def test_the_figures_are_those_of_trec_eval_on_the_same_rankings(evaluate, checkpoints, in_folder):
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="needs the package pytrec-eval-terrier")
    write_collection(in_folder / "nano/one")
    write_collection(in_folder / "nano/two", 17)
    as_on_the_hub(in_folder / "nano/two", "NanoBEIR")
    record, _ = evaluate("bert", "--suite", "beir", "--data", "nano", "--depth", 12)
    found = {(score["task"], score["metric"]): score for score in record["scores"]}
    encoder = load_encoder(checkpoints["bert"])
    for name in ("one", "two"):
        collection = read_collection(f"nano/{name}")
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
    collection, encoder = read_collection("one"), load_encoder(checkpoints["bert"])
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
    header = "query-id\tcorpus-id\tscore\n"
    for file, content, message in [
        ("qrels/test.tsv", judged + "q3\td99\t1\n", "line 59 of .* names the document 'd99', which is not in"),
        ("qrels/test.tsv", judged + "q99\td1\t1\n", "names the query 'q99', which is not in"),
        ("qrels/test.tsv", header + "q3 d1 1\n", "line 2 of .* is not query-id, corpus-id, score by tabs"),
        ("qrels/test.tsv", header + "q3\td1\thigh\n", "has no score that is a whole number: 'high'"),
        ("qrels/test.tsv", header + "q3\td1\t0\n", "name no relevant document"),
        ("qrels/test.tsv", "q3\td1\t1\n", "line 1 of .* has no column 'query-id': it has q3, d1, 1"),
        ("queries.jsonl", '{"_id": "q3", "text": "x"\n', "line 1 of .*queries.jsonl is no JSON: "),
        ("corpus.jsonl", '{"id": 1}\n', "line 1 of .*corpus.jsonl has no _id, or no text"),
    ]:
        (in_folder / "one" / file).write_text(content)
        with pytest.raises(InputError, match=message):
            read_collection("one")
    as_parquet = in_folder / "two/corpus/train-00000-of-00001.parquet"
    as_parquet.parent.mkdir(parents=True)
    Dataset.from_list([{"id": "d1", "text": "x"}]).to_parquet(as_parquet)
    with pytest.raises(InputError, match=r"00001\.parquet has no column '_id': it has 'id', 'text'"):
        read_collection("two")
    shutil.copytree(in_folder / "one", in_folder / "empty")
    (in_folder / "empty/corpus.jsonl").write_bytes(b"")
    shutil.copytree(in_folder / "one", in_folder / "other/one")
    for name, options, message in [
        ("bert", ("--data", "nowhere"), "there is no folder nowhere"),
        ("bert", ("--data", "other/one/qrels"), "other/one/qrels has no corpus.jsonl, and no folder in it has"),
        ("bert", ("--data", "two"), "two has no queries.jsonl"),
        ("bert", ("--data", "empty"), "the file empty/corpus.jsonl is empty"),
        ("bert", ("--data", "one", "other"), "has several collections that are called one"),
        ("bert", ("--data", "one", "--split", "dev"), "one has no qrels for the split 'dev': it has test"),
        ("gpt", ("--data", "one"), "holds a gpt: this needs one of bert"),
    ]:
        status, _, err = run("evaluate", "--checkpoint", checkpoints[name], "--suite", "beir", *options)
        assert (status, err.count("\n")) == (2, 1)
        assert message in err
