"""BERT from the command line: train, fill masks, embed, fine-tune, and what bad input says."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from src.checkpoint import load_trained
from src.models import BERT

SHAPE = {"max_seq_len": 32, "d_model": 16, "n_heads": 2, "n_layers": 1, "dropout": 0.0, "attention_dropout": 0.0}


@pytest.fixture
def bert_config(tmp_path: Path) -> Path:
    """A BERT that trains in a second on documents of three sentences."""
    text = "\n\n".join(f"The cat {i} sat. A dog ran over {i} bridges. Nobody said one word." for i in range(40))
    (tmp_path / "sentences.txt").write_text(text, encoding="utf-8")
    settings = {
        "experiment": "bert",
        "model": {
            "class_path": "BERTModule",
            "init_args": {
                "config": SHAPE,
                "optimizer": {"class_path": "AdamW", "init_args": {"lr": 1e-2}},
                "schedule": {"class_path": "Linear", "init_args": {"warmup_steps": 2}},
            },
        },
        "data": {
            "class_path": "MLMDataModule",
            "init_args": {
                "source": str(tmp_path / "sentences.txt"),
                "document_separator": "\n\n",
                "validation_fraction": 0.2,
                "tokenizer_vocab_size": 100,
                "seq_len": 32,
                "batch_size": 8,
                "cache_dir": str(tmp_path / "cache"),
            },
        },
        "trainer": {
            "max_steps": 10,
            "val_check_interval": 4,
            "check_val_every_n_epoch": None,
            "log_every_n_steps": 2,
            "accelerator": "cpu",
            "precision": "32-true",
            "default_root_dir": str(tmp_path / "logs"),
        },
    }
    path = tmp_path / "bert.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("bert") / "version_0"


@pytest.fixture
def trained(run, bert_config, tmp_path, finished) -> Path:
    """The folder of a finished run, which is made once for all tests."""
    folder = tmp_path / "logs/bert/version_0"
    if not finished.exists():
        status, out, err = run("fit", "--config", bert_config)
        assert status == 0, err
        for figure in ("val/mlm_perplexity", "val/mlm_accuracy", "val/nsp_accuracy"):
            assert figure in out
        shutil.copytree(folder, finished)
    else:
        shutil.copytree(finished, folder)
    return folder


def test_parts_of_the_loss_and_padding_are_logged(trained):
    header, *_ = (trained / "metrics.csv").read_text().splitlines()
    assert {"train/mlm_loss", "train/nsp_loss", "train/padding_share", "val/mlm_loss", "val/nsp_loss"} <= set(
        header.split(",")
    )


def test_a_checkpoint_alone_fills_masks(run, trained):
    checkpoint = trained / "checkpoints/last.ckpt"
    arguments = ("fill-mask", "--checkpoint", checkpoint, "--text", "The [MASK] sat. A [MASK] ran.", "--top-k", 3)
    status, out, _ = run(*arguments)
    assert status == 0
    lines = out.splitlines()
    assert [line for line in lines if line.startswith("[MASK]")] == ["[MASK] 1", "[MASK] 2"]
    assert len(lines) == 8
    model, tokenizer, _ = load_trained(checkpoint, BERT)
    ids = torch.tensor([[2, *tokenizer.encode("The [MASK] sat. A [MASK] ran.").ids, 3]])
    best = torch.softmax(model(ids).masked_words[0, ids[0] == 4], -1).max(-1)
    for line, probability, word in zip((lines[1], lines[5]), best.values, best.indices, strict=True):
        assert line == f"{probability:.4f}  {tokenizer.id_to_token(int(word))}"


def test_a_checkpoint_alone_embeds_lines(run, trained, tmp_path):
    lines = ["The cat sat.", "A\u2028line\x0cof\x85one.", "A dog ran over 7 bridges. " * 10, "The cat sat."]
    (tmp_path / "in.txt").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    out_path = tmp_path / "out.npy"
    arguments = ("embed", "--checkpoint", trained / "checkpoints/last.ckpt", "--input", tmp_path / "in.txt")
    status, out, _ = run(*arguments, "--output", out_path, "--batch-size", 3)
    assert status == 0
    assert "wrote 4 vectors of 16" in out
    assert "1 were cut to 32 tokens" in out
    vectors = np.load(out_path)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[0], vectors[3], atol=1e-6)
    model, tokenizer, _ = load_trained(trained / "checkpoints/last.ckpt", BERT)
    ids = torch.tensor([[2, *tokenizer.encode(lines[0]).ids, 3]])
    np.testing.assert_allclose(vectors[0], model.encoder(ids)[0].mean(0).detach(), atol=1e-5)


def test_fine_tuning_takes_a_file_of_pairs(run, trained, bert_config, tmp_path):
    rows = [f'The cat {i} sat.,"A dog, running.",{("yes", "no", "perhaps")[i % 3]}' for i in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["first,second,answer", *rows]), encoding="utf-8")
    settings = yaml.safe_load(bert_config.read_text())
    settings["model"]["class_path"] = "ClassificationModule"
    settings["model"]["init_args"]["pretrained"] = str(trained / "checkpoints/last.ckpt")
    settings["data"] = {
        "class_path": "ClassificationDataModule",
        "init_args": {
            "tokenizer": str(trained / "tokenizer.json"),
            "source": str(tmp_path / "rows.csv"),
            "text_column": "first",
            "second_text_column": "second",
            "label_column": "answer",
            "seq_len": 32,
            "batch_size": 8,
            "cache_dir": str(tmp_path / "cache"),
        },
    }
    path = tmp_path / "fine.yaml"
    path.write_text(yaml.safe_dump({**settings, "experiment": "fine"}), encoding="utf-8")
    status, out, err = run("fit", "--config", path)
    assert status == 0, err
    assert "val/f1" in out
    assert "val/accuracy" in out
    checkpoint = tmp_path / "logs/fine/version_0/checkpoints/last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["model_config"]["n_labels"] == 3
    (trained / "checkpoints/last.ckpt").unlink()  # the fine-tuned checkpoint needs it no more
    status, out, err = run("test", "--ckpt_path", checkpoint)
    assert status == 0, err
    assert "test/f1" in out
    # predictions of the same split, as those of classify for the same texts
    status, out, err = run("predict", "--ckpt_path", checkpoint)
    assert status == 0, err
    table = tmp_path / "logs/fine/version_2/predictions.csv"
    assert f"predictions of 6 rows: {table}" in out
    with table.open(newline="") as file:
        predicted = list(csv.DictReader(file))
    pairs = [f"{row['text']}\t{row['second_text']}" for row in predicted]
    assert all(
        f"{pair.replace(chr(9), ',')}," in (tmp_path / "rows.csv").read_text().replace('"', "") for pair in pairs
    )
    (tmp_path / "pairs.txt").write_text("\n".join(pairs))
    arguments = ("--input", tmp_path / "pairs.txt", "--output", tmp_path / "classified.csv")
    status, _, err = run("classify", "--checkpoint", checkpoint, *arguments)
    assert status == 0, err
    with (tmp_path / "classified.csv").open(newline="") as file:
        classified = list(csv.DictReader(file))
    for row, again in zip(predicted, classified, strict=True):
        assert row.pop("true_label") in ("no", "perhaps", "yes")
        for name in ("no", "perhaps", "yes"):
            probabilities = [float(one.pop(f"probability_{name}")) for one in (row, again)]
            assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-5)
        assert row == again


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--data.init_args.document_separator", "null"),
            "has 1 document of two sentences or more: next-sentence prediction needs two",
        ),
        (("--data.init_args.seq_len", "33"), "data.seq_len 33 is more than the model's max_seq_len 32"),
        (("--data.init_args.tokenizer", "{tmp}/none.json"), "there is no tokenizer"),
        (("--data.init_args.mask_rate", "1.5"), "mask_rate is 1.5"),
        (("--model.init_args.config.n_heads", "3"), "d_model 16 is not divisible by n_heads 3"),
        (("--data.class_path", "LMDataModule", "--data.init_args.tokenizer", "char"), "BERTModule trains on"),
    ],
)
def test_a_run_that_cannot_be_is_refused_in_one_line(run, bert_config, tmp_path, arguments, message):
    status, _, err = run("fit", "--config", bert_config, *(a.format(tmp=tmp_path) for a in arguments))
    assert status == 2
    assert message in err.splitlines()[-1]
    assert not (tmp_path / "logs").exists()


def test_texts_that_cannot_be_are_refused(run, trained, tmp_path):
    checkpoint = trained / "checkpoints/last.ckpt"
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "in.txt").write_text("a cat", encoding="utf-8")
    fill, embed = ("fill-mask", "--checkpoint", checkpoint), ("embed", "--checkpoint", checkpoint)
    for arguments, message in [
        ((*fill, "--text", "No mask here."), "the text 'No mask here.' has no [MASK]"),
        ((*fill, "--text", "[MASK] " * 40), "the text has 42 tokens, the network 32 positions"),
        ((*fill, "--text", "[MASK]", "--top-k", 0), "--top-k"),
        ((*embed, "--input", tmp_path / "none.txt", "--output", tmp_path / "o.npy"), "there is no file"),
        ((*embed, "--input", tmp_path / "binary.txt", "--output", tmp_path / "o.npy"), "is not UTF-8"),
        ((*embed, "--input", tmp_path / "in.txt", "--output", tmp_path / "o.txt"), "must be a .npy file"),
        ((*embed, "--input", tmp_path / "in.txt", "--output", tmp_path / "no/o.npy"), "in a folder that exists"),
    ]:
        status, _, err = run(*arguments)
        assert status == 2
        assert message in err
        assert len(err.strip().splitlines()) == 1
