"""WMT's test sets out of sacrebleu's own folder: its scores, and its paired bootstrap."""

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
