"""classify: from a checkpoint alone; and predict, whose table has the same rows."""

import csv
import io
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

from src.checkpoint import save_checkpoint
from src.classifier import classifier_of
from src.tokenization import bert_ids
from tests.random_networks import WORDPIECE, checkpoint_of

ROOT = Path(__file__).parents[2]
NAMES = ["calm", "glad, very", "sad"]
TEXTS = ["the cat sat on a mat", "nobody said one word", 'seven "grey" dogs, and one cat']


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The random network of a classifier, and its checkpoint."""
    path = tmp_path_factory.mktemp("classify") / "classifier.ckpt"
    model, content = checkpoint_of("bert_classifier")
    save_checkpoint({**content, "label_names": NAMES}, path)
    return model, path


def expected(model, text: str) -> dict[str, float]:
    special = bert_ids(WORDPIECE)
    ids = [special["cls_token"], *WORDPIECE.encode(text, add_special_tokens=False).ids, special["sep_token"]]
    return dict(zip(NAMES, torch.softmax(model(torch.tensor([ids]))[0], -1).tolist(), strict=True))


def test_each_text_has_its_labels_the_likeliest_first(run, classifier):
    model, path = classifier
    status, out, err = run("classify", "--checkpoint", path, *(a for text in TEXTS for a in ("--text", text)))
    assert status == 0, err
    assert len(out.splitlines()) == len(TEXTS)
    for text, line in zip(TEXTS, out.splitlines(), strict=True):
        cells = line.split("\t")
        found = dict(zip(cells[::2], map(float, cells[1::2]), strict=True))
        assert list(found.values()) == sorted(found.values(), reverse=True)
        assert found == pytest.approx(expected(model, text), abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_table_is_the_same_whatever_its_format_and_the_batch(run, classifier, tmp_path, monkeypatch, batch_size):
    model, path = classifier
    lines = [*TEXTS, "", "the " * 60]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    status, out, err = run("classify", "--checkpoint", path, "--output", tmp_path / "a.csv", "--batch-size", batch_size)
    assert (status, out) == (0, ""), err
    assert "warning: 1 of the texts were cut to 24 tokens\n" in err
    assert "warning: 1 of the texts are empty: no label\n" in err
    (tmp_path / "in.txt").write_text("\n".join(lines))
    arguments = ("classify", "--checkpoint", path, "--input", tmp_path / "in.txt", "--output", tmp_path / "a.jsonl")
    assert run(*arguments)[0] == 0
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [*TEXTS, lines[-1]]
    objects = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    for row, obj in zip(rows, objects, strict=True):
        assert (row["text"], row["label"]) == (obj["text"], obj["label"])
        probabilities = {name: float(row[f"probability_{name}"]) for name in NAMES}
        assert probabilities == pytest.approx({name: obj[f"probability_{name}"] for name in NAMES}, abs=2e-6)
        assert row["label"] == max(probabilities, key=probabilities.get)
    assert float(rows[0]["probability_sad"]) == pytest.approx(expected(model, TEXTS[0])["sad"], abs=1e-5)


def test_a_text_as_long_as_the_positions_that_are_no_multiple_of_eight():
    _, content = checkpoint_of("bert_classifier", max_seq_len=21)
    classifier = classifier_of(content, "odd.ckpt")
    rows, cut = classifier.rows([["the " * 60]])
    assert (len(rows[0][0]), cut) == (21, 1)
    assert classifier.label_names == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert classifier.probabilities(rows).sum().item() == pytest.approx(1)


def test_pairs_stand_on_a_line_with_a_tab_between(run, tmp_path):
    model, content = checkpoint_of("bert_classifier")
    settings = yaml.safe_dump({"data": {"init_args": {"second_text_column": "second"}}})
    save_checkpoint({**content, "config": settings}, tmp_path / "pairs.ckpt")
    status, out, err = run("classify", "--checkpoint", tmp_path / "pairs.ckpt", "--text", "the cat\ta mat")
    assert status == 0, err
    special = bert_ids(WORDPIECE)
    parts = [[*WORDPIECE.encode(text).ids, special["sep_token"]] for text in ("the cat", "a mat")]
    ids = torch.tensor([[special["cls_token"], *parts[0], *parts[1]]])
    segments = torch.tensor([[0] * (1 + len(parts[0])) + [1] * len(parts[1])])
    best = torch.softmax(model(ids, token_type_ids=segments)[0], -1).max(0)
    assert out.split("\t")[:2] == [f"LABEL_{int(best.indices)}", f"{best.values:.4f}"]
    for text in ("the cat", "a\tb\tc", "\ta mat"):
        status, _, err = run("classify", "--checkpoint", tmp_path / "pairs.ckpt", "--text", text)
        assert (status, err.count("\n")) == (2, 1)
        assert "is no pair" in err


def test_what_cannot_be_classified_is_refused_in_one_line(run, classifier, tmp_path):
    _, path = classifier
    for name, changes in (("gpt", {}), ("bert_classifier", {"n_labels": 1})):
        save_checkpoint(checkpoint_of(name, **changes)[1], tmp_path / f"{name}.ckpt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "in.txt").write_text("a cat")
    for arguments, message in [
        (("--checkpoint", tmp_path / "gpt.ckpt", "--text", "a"), "holds a gpt: this needs a bert_classifier"),
        (("--checkpoint", tmp_path / "bert_classifier.ckpt", "--text", "a"), "has 1 label, the score of a reranker"),
        (("--checkpoint", path, "--text", "a", "--input", tmp_path / "in.txt"), "not allowed with argument --text"),
        (("--checkpoint", path, "--input", tmp_path / "binary.txt"), "is not UTF-8"),
        (("--checkpoint", path, "--text", "a", "--output", tmp_path / "o.txt"), "must be a .csv or .jsonl file"),
        (("--checkpoint", path, "--text", "a", "--output", tmp_path / "no/o.csv"), "in a folder that exists"),
    ]:
        status, out, err = run("classify", *arguments)
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert message in err


def test_a_table_of_ones_own_is_trained_on_until_it_helps_no_more(run, tmp_path):
    """By the configuration that is shipped, at a rate of 0: no validation is better than the first one."""
    rows = [f"Satz {i};{'gut' if i % 3 else 'schlecht'}" for i in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["Text;Urteil", *rows]))
    command = ["fit", "--config", ROOT / "configs/classification_csv.yaml", "--model.optimizer.lr", 0]
    command += ["--data.source", tmp_path / "rows.csv", "--data.text_column", "Text", "--data.label_column", "Urteil"]
    command += ["--data.cache_dir", tmp_path / "cache", "--trainer.default_root_dir", tmp_path / "logs"]
    status, out, err = run(*command, "--trainer.accelerator", "cpu", "--model.config.n_layers", 1)
    assert status == 0, err
    out = " ".join(out.split())
    assert "held out of the 60 rows of" in out
    assert "6 for validation and 6 for test" in out
    assert "val/loss did not improve in the last 3 records" in out
    best = tmp_path / "logs/classification_csv/version_0/checkpoints/best.ckpt"
    assert "best.ckpt(val/loss0." in out.replace(" ", "")  # the path may be folded
    assert torch.load(best)["epoch"] == 0
    status, out, err = run("classify", "--checkpoint", best, "--text", "Ein schöner Satz.")
    assert status == 0, err
    assert {"gut", "schlecht"} <= set(out.split())
