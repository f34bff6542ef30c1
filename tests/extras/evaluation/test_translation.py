"""WMT's test sets out of sacrebleu's own folder: its scores, and its paired bootstrap."""

import sys

import pytest
from sacrebleu import corpus_bleu, corpus_chrf
from sacrebleu.dataset import DATASETS

from tests.extras.evaluation.conftest import sentence


@pytest.fixture
def wmt14(tmp_path, monkeypatch):
    """A small test set in the form that sacrebleu keeps one in."""
    folder = tmp_path / "sacrebleu"
    folder.mkdir()
    monkeypatch.setattr(DATASETS["wmt14"], "_outdir", str(folder))
    monkeypatch.setattr(DATASETS["wmt14"], "_rawdir", str(folder / "raw"))
    texts = {"src": [sentence(i) for i in range(12)], "ref": [sentence(i, 7) for i in range(12)]}
    for field in ("src", "ref", "docid", "genre", "origlang"):
        lines = texts.get(field, ["x"] * 12)
        (folder / f"wmt14.en-de.{field}").write_text("\n".join(lines) + "\n")
    return texts


def test_the_scores_are_those_of_sacrebleu(evaluate, in_folder, wmt14):
    options = ("--suite", "wmt14", "--language-pair", "en-de", "--max-length", 10, "--samples", 100)
    record, _ = evaluate("transformer", *options, "--beam", 2)
    lines = (in_folder / "results/wmt14.en-de.txt").read_text().splitlines()
    bleu, chrf = record["scores"]
    assert bleu["value"] == pytest.approx(corpus_bleu(lines, [wmt14["ref"]]).score)
    assert chrf["value"] == pytest.approx(corpus_chrf(lines, [wmt14["ref"]]).score)
    assert chrf["low"] < chrf["value"] < chrf["high"]
    assert "version:" in bleu["note"]
    # the references themselves are better than a random network, and that is not chance
    (in_folder / "reference.txt").write_text("\n".join(wmt14["ref"]) + "\n")
    record, _ = evaluate("transformer", *options, "--baseline", "reference.txt")
    difference = record["scores"][2]
    assert difference["value"] == pytest.approx(record["scores"][0]["value"] - 100)
    assert "is significantly worse (p = 0.0" in difference["note"]


PROGRAM = """import argparse, json, os
parser = argparse.ArgumentParser()
for option in ("-s", "-r", "--to_json", "--model", "--gpus"):
    parser.add_argument(option, required=True)
parser.add_argument("-t", nargs="+")
for option in ("--quiet", "--only_system"):
    parser.add_argument(option, action="store_true", required=True)
asked = parser.parse_args()
assert asked.gpus == "0"
if asked.model == "broken":
    raise KeyError("Model 'broken' not supported by COMET.")
texts = [open(path).read().splitlines() for path in (asked.s, asked.r, *asked.t)]
rows = lambda mt: [dict(src=s, ref=r, mt=m, COMET=len(m) / len(r)) for s, r, m in zip(*texts[:2], mt, strict=True)]
content = dict() if asked.model == "silent" else dict(zip(asked.t, map(rows, texts[2:])))
json.dump(content, open(asked.to_json, "w"))
"""  # with the options and the output of unbabel-comet 2.2.7, which cannot be installed beside what this project needs


def test_comet_is_asked_by_its_own_program(run, evaluate, checkpoints, in_folder, wmt14):
    (in_folder / "comet-score.py").write_text(PROGRAM)
    (in_folder / "comet-score").write_text(f'#!/bin/sh\nexec "{sys.executable}" comet-score.py "$@"\n')
    (in_folder / "comet-score").chmod(0o755)
    (in_folder / "reference.txt").write_text("\n".join(wmt14["ref"]) + "\n")
    options = ("--suite", "wmt14", "--language-pair", "en-de", "--max-length", 10, "--samples", 100)
    comet = (*options, "--comet", "./comet-score", "--baseline", "reference.txt")
    record, _ = evaluate("transformer", *comet)
    score, difference = record["scores"][4:]
    lines = (in_folder / "results/wmt14.en-de.txt").read_text().splitlines()
    expected = [len(line) / len(reference) for line, reference in zip(lines, wmt14["ref"], strict=True)]
    assert (score["metric"], score["value"]) == ("COMET", pytest.approx(sum(expected) / 12))
    assert score["low"] < score["value"] < score["high"]
    assert score["note"] == "Unbabel/wmt22-comet-da, 12 sentences"
    assert (difference["metric"], difference["value"]) == ("COMET - baseline", pytest.approx(score["value"] - 1))
    # another model needs no other translations
    _, out = evaluate("transformer", *comet, "--comet-model", "Unbabel/wmt20-comet-da")
    assert "1 of 2 parts are there" in out
    for more, message in [
        (("--comet", "./nowhere"), "there is no program ./nowhere: install unbabel-comet into a virtual environment"),
        (("--comet-model", "nowhere.ckpt"), "there is no file nowhere.ckpt"),
        (("--comet-model", "broken"), "--model broken failed with status 1: KeyError: \"Model 'broken' not supported"),
        (("--comet-model", "silent"), "./comet-score wrote no scores that can be read into"),
    ]:
        arguments = ("--checkpoint", checkpoints["transformer"], "--output", "results", *comet, *more)
        status, _, err = run("evaluate", *arguments)
        assert (status, err.count("\n")) == (2, 1), err
        assert message in err


def test_what_cannot_be_is_refused_in_one_line(run, checkpoints, in_folder, wmt14):
    (in_folder / "short.txt").write_text("one\n")
    for suite, options, message in [
        ("wmt14", ("--language-pair", "en-xx"), "wmt14 has no language pair 'en-xx': it has cs-en"),
        ("wmt14", ("--language-pair", "en-de", "--baseline", "short.txt"), "short.txt has 1 lines, and wmt14 12"),
        ("wmt14x", ("--language-pair", "en-de"), "unknown suite 'wmt14x'; did you mean 'wmt14'?"),
    ]:
        status, _, err = run("evaluate", "--checkpoint", checkpoints["transformer"], "--suite", suite, *options)
        assert (status, err.count("\n")) == (2, 1)
        assert message in err
