"""Retrieval from the command line: index, search, rerank, answer, evaluate, and what bad input says."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from src.models import GPT, GPTConfig
from src.tokenization import END_OF_TEXT, train_bpe
from tests.extras.retrieval.conftest import TEXT, documents, write_checkpoint


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Documents as files, an encoder, a reranker and a GPT, all with random weights."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    for document in documents(5):
        (tmp_path / f"docs/{document.source}.txt").write_text(document.text)
    (tmp_path / "docs/page.html").write_text("<p>A quokka is a small wallaby.</p><p>It lives on islands.</p>")
    write_checkpoint(tmp_path / "encoder.ckpt")
    write_checkpoint(tmp_path / "reranker.ckpt", "bert_classifier")
    tokenizer = train_bpe(TEXT, 300)
    torch.manual_seed(0)
    config = GPTConfig(tokenizer.get_vocab_size(), max_seq_len=256, d_model=16, n_heads=2, n_layers=1)
    weights = {f"model.{name}": weight for name, weight in GPT(config).state_dict().items()}
    content = {"architecture": "gpt", "model_config": asdict(config), "tokenizer": tokenizer.to_str()}
    content |= {"special_tokens": {"eos_token": END_OF_TEXT}, "state_dict": weights, "config": "experiment: test"}
    torch.save(content, tmp_path / "gpt.ckpt")
    return tmp_path


INDEX = ("rag", "index", "--input", "docs", "--output", "index", "--encoder", "encoder.ckpt", "--passage", 30)
INDEX = (*INDEX, "--overlap", 5)


def test_index_search_change_and_answer(run, folder):
    status, out, err = run(*INDEX)
    assert (status, err) == (0, "")
    assert "docs: 6 new" in out
    assert "index: 6 documents" in out

    search = ("rag", "search", "--index", "index", "--query", "a small quokka")
    status, out, err = run(*search)  # the encoder is where it was
    assert status == 0, err
    first, shown, *_ = out.splitlines()
    assert first.startswith("1. page.html [0-49]  bm25 ")
    assert "dense " in first
    assert "hybrid 0.03" in first
    assert shown == "   A quokka is a small wallaby. It lives on islands."
    status, out, _ = run(*search, "--mode", "bm25", "--rerank", "reranker.ckpt", "--k", 99)
    assert status == 0
    assert out.count("page.html") == out.count("rerank") == 1

    answer = ("rag", "answer", "--checkpoint", "gpt.ckpt", "--index", "index", "--max-new-tokens", 6)
    status, out, err = run(
        *answer, "--question", "a small quokka", "--min-similarity", "-1", "--rerank", "reranker.ckpt"
    )
    assert status == 0, err
    said, sources = out.split("\n\nSources:\n")
    assert said
    assert "The answer cites none of the passages" in said  # of a network of random weights
    assert said.count("\n- ") == 3
    assert sources.startswith("[1] ")
    assert "rerank " in sources
    for nothing in (("quark", "--mode", "bm25"), ("a small quokka", "--min-similarity", "1.1")):
        status, out, err = run(*answer, "--question", *nothing)
        assert (status, err) == (0, "")
        assert out == "Nothing relevant was found in the index: there is no answer.\n"

    # without a GPT, and without vectors
    for mode in ("hybrid", "bm25"):
        asked = ("--question", "Where does a quokka live?", "--mode", mode, "--min-similarity", "-1")
        status, out, err = run("rag", "answer", "--index", "index", *asked)
        assert (status, err) == (0, "")
        assert out.startswith("There is no --checkpoint to answer")
        assert out.count("\n- ") == (3 if mode == "hybrid" else 2)
        assert "\n\nSources:\n[1] " in out
    assert "\n- A quokka is a small wallaby. [1]\n" in out

    (folder / "docs/doc0.txt").write_text("Something else about a wombat.")
    status, out, _ = run(*INDEX)
    assert status == 0
    assert "0 new, 1 replaced, 5 there already" in out
    assert "doc0.txt" in run("rag", "search", "--index", "index", "--query", "wombat", "--mode", "bm25")[1]
    status, out, _ = run("rag", "delete", "--index", "index", "--source", "page.html")
    assert status == 0
    assert "1 document deleted" in out
    status, out, _ = run(*search, "--mode", "bm25")
    assert (status, out) == (0, "nothing was found\n")


def test_queries_out_of_documents_and_their_evaluation(run, folder):
    rows = [json.dumps({"text": document.text}) for document in documents(12)]
    (folder / "corpus.jsonl").write_text("\n".join(rows))
    status, out, err = run("rag", "queries", "--input", "corpus.jsonl", "--test-fraction", "0.5", "--output", "eval")
    assert status == 0, err
    assert "out of 6 documents of the test split" in out
    index = ("rag", "index", "--input", "eval/documents.jsonl", "--output", "index", "--passage", "30", "--overlap", 5)
    assert run(*index, "--encoder", "encoder.ckpt")[0] == 0
    mine = ("rag", "mine", "--index", "index", "--queries", "eval/queries.jsonl", "--output")
    status, out, err = run(*mine, "rows.jsonl", "--depth", 5)
    assert status == 0, err
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert f"{len(rows)} rows" in out
    assert all(set(row) == {"query", "positive", "negatives"} and 3 <= len(row["negatives"]) <= 5 for row in rows)
    assert "there is no folder nowhere" in run(*mine, "nowhere/rows.jsonl")[2]
    assert "docs is a folder: name a file" in run(*mine, "docs")[2]
    assert not (folder / "docs.part").exists()
    measure = ("rag", "eval", "--index", "index", "--queries", "eval/queries.jsonl", "--rerank", "reranker.ckpt")
    status, out, err = run(*measure, "--candidates", 10, "--output", "figures.json")
    assert status == 0, err
    for stage in ("bm25", "dense", "hybrid", "hybrid + rerank", "gain of the reranker"):
        assert stage in out
    figures = json.loads((folder / "figures.json").read_text())
    assert set(figures["measures"]["hybrid"]) == {"recall@50", "MRR@10", "nDCG@10"}
    found = figures["measures"]["bm25"]["MRR@10"]
    assert 0 <= found["low"] <= found["mean"] <= found["high"] <= 1
    assert figures["milliseconds"]["rerank"][0] > 0


QUERY = {"query": "river mountain", "source": "doc0.txt", "start": 0, "end": 9}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("query", value) for value in (5, None, ["a"], "\ud800 river")),
        *(("source", value) for value in (None, True)),
        *(("start", value) for value in ("0", None)),
        *(("end", value) for value in (True, 1.5)),
    ],
)
def test_a_query_of_another_type_is_refused_by_its_line(run, folder, key, value):
    """A number would be searched for as text, and null as a word."""
    assert run("rag", "index", "--input", "docs", "--output", "index")[0] == 0
    (folder / "queries.jsonl").write_text("\n".join(json.dumps(row) for row in (QUERY, {**QUERY, key: value})))
    index = ("--index", "index", "--queries", "queries.jsonl")
    for verb in (("rag", "eval", *index), ("rag", "mine", *index, "--output", "rows.jsonl")):
        status, _, err = run(*verb)
        assert (status, err.count("\n")) == (2, 1)
        assert "line 2 of queries.jsonl is no query" in err
    assert not (folder / "rows.jsonl").exists()


def test_documents_that_are_no_text_are_left_out_and_counted(run, folder):
    good = [f"A river is here, number {i}." for i in range(80)]
    values = [good[0], 5, None, ["a"], 1.5, *good[1:], True]
    rows = "\n".join(json.dumps({"text": value}) for value in values)
    (folder / "mixed.jsonl").write_text(rows)
    status, out, err = run("rag", "index", "--input", "mixed.jsonl", "--output", "mixed")
    assert (status, err) == (0, "")
    assert "left out of mixed.jsonl: 4 rows, wrong type (row 2" in out
    assert "mixed.jsonl: 80 new, 1 without words" in out
    (folder / "numbers.jsonl").write_text('{"text": 1}\n{"text": 2}\n')
    status, out, err = run("rag", "index", "--input", "numbers.jsonl", "--output", "numbers")
    assert (status, err.count("\n")) == (2, 1)
    assert "2 of the 2 rows of numbers.jsonl cannot be read: 2 rows, wrong type" in err


def test_what_can_be_written_nowhere_or_drawn_from_nothing(run, folder):
    (folder / "file").write_text("x")
    queries = ("rag", "queries", "--input", "docs/doc0.txt", "--test-fraction", "0.5", "--every", 2, "--output")
    for arguments, message in [
        ((*queries, "file"), "File exists: file"),
        ((*queries, "file/below"), "Not a directory: file/below"),
        ((*queries, "new", "--seed", -1), "--seed: '-1' is no whole number"),
    ]:
        status, _, err = run(*arguments)
        assert (status, err.count("\n")) == (2, 1)
        assert message in err
    assert (folder / "file").read_text() == "x"


def test_what_cannot_be_is_refused_in_one_line(run, folder):
    (folder / "none").mkdir()
    (folder / "bad").mkdir()
    (folder / "bad/a.txt").write_bytes(b"\xff\xfe\x00")
    write_checkpoint(folder / "narrow.ckpt", d_model=16)
    write_checkpoint(folder / "other.ckpt", seed=1)
    assert run(*INDEX)[0] == 0
    assert run("rag", "index", "--input", "docs", "--output", "words")[0] == 0
    index, search = ("rag", "index", "--output", "new"), ("rag", "search", "--index", "index", "--query")
    for arguments, message in [
        ((*index, "--input", "none"), "the folder none is empty"),
        ((*index, "--input", "bad"), "bad/a.txt is not UTF-8: byte 0, on line 1; name its encoding by --encoding,"),
        ((*index, "--input", "nothing.txt"), "there is no file nothing.txt"),
        ((*index, "--input", "docs", "--overlap", 100), "--overlap 100 must be at least 0"),
        ((*index, "--input", "docs", "--encoder", "encoder.ckpt", "--passage", 99), "more than the 46 tokens"),
        ((*index, "--input", "docs", "--encoder", "gpt.ckpt"), "needs one of bert, longformer, bi_encoder"),
        ((*index, "--input", "docs", "--stemmer", "klingon"), "there is no stemmer 'klingon'"),
        ((*INDEX, "--vectors", "hnsw"), "was made with other settings: its kind is flat, not hnsw"),
        ((*search, "?!"), "the query '?!' has no words"),
        ((*search, "river", "--encoder", "narrow.ckpt"), "makes vectors of 16, the index index holds vectors of 32"),
        ((*search, "river", "--encoder", "other.ckpt"), "is not the one that made the vectors"),
        ((*search, "river", "--rerank", "encoder.ckpt"), "holds a bert: this needs a bert_classifier"),
        ((*search, "river", "--k", 0), "--k"),
        (("rag", "search", "--index", "words", "--query", "river", "--mode", "dense"), "needs the encoder"),
        (("rag", "search", "--index", "docs", "--query", "river"), "there is no index in docs"),
        (("rag", "delete", "--index", "index", "--source", "nobody.txt"), "has no document 'nobody.txt'"),
        (("rag", "eval", "--index", "index", "--queries", "no.jsonl"), "there is no file no.jsonl"),
        (("rag",), "required"),
    ]:
        status, _, err = run(*arguments)
        assert status == 2, arguments
        assert message in err, err
        assert len(err.strip().splitlines()) == 1
        assert not (folder / "new").exists()
    (folder / "index/manifest.json").write_text("{")
    status, _, err = run(*search, "river")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "is damaged" in err
