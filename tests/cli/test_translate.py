"""fit, test, translate, compare and average, from the command line, on a small task that is really learnt."""

import gzip
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import src.cli
from src.checkpoint import load_trained
from src.decoding import beam_search, wu_penalty
from src.models import Transformer
from tests.reversing import reversing, reversing_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a trained run in it."""
    root = tmp_path_factory.mktemp("translation")
    config = reversing_config(reversing(root / "corpus", 3000, "abcdefghij", 6), root, 400)
    arguments = ["--checkpoint.every_n_train_steps", "100", "--checkpoint.monitor", "null"]
    arguments += ["--checkpoint.save_top_k", "-1", "--checkpoint.filename", "step={step}"]
    src.cli.main(["fit", "--config", str(config), *arguments])
    return root


@pytest.fixture(scope="module")
def checkpoint(root):
    return root / "logs/reverse/version_0/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def files(root):
    return [root / "corpus" / f"test.{language}" for language in ("forward", "backward")]


def test_a_file_is_translated_in_order(run, checkpoint, files, tmp_path):
    status, out, err = run("translate", "--checkpoint", checkpoint, "--input", files[0], "--batch-size", 7)
    assert status == 0, err
    expected = files[1].read_text().splitlines()
    translations = out.splitlines()
    assert len(translations) == len(expected)
    right = sum(a == b for a, b in zip(translations, expected, strict=True))
    assert right / len(expected) > 0.6
    packed = tmp_path / "source.gz"
    packed.write_bytes(gzip.compress(files[0].read_bytes()))
    output = tmp_path / "out"
    status, out, err = run("translate", "--checkpoint", checkpoint, "--input", packed, "--output", output)
    assert (status, out, err) == (0, "", f"wrote {output}\n")
    assert output.read_text().splitlines() == translations


def test_standard_input_with_empty_lines(run, checkpoint, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\ufeffabc\r\n\n  \nfed".encode())))
    status, out, err = run("translate", "--checkpoint", checkpoint)
    assert status == 0, err
    assert out.splitlines() == ["cba", "", "", "def"]
    assert out.endswith("\n")


def test_an_invalid_byte_on_standard_input_is_one_line(run, checkpoint, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"abc\nf\xe9d\n")))
    status, _, err = run("translate", "--checkpoint", checkpoint)
    assert status == 2
    assert err.startswith("error: line 2 of standard input is not UTF-8")
    assert err.count("\n") == 1


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_a_text(beam, run, checkpoint):
    assert (
        run("translate", "--checkpoint", checkpoint, "--text", "abcd", "--text", "e", "--beam", beam)[1] == "dcba\ne\n"
    )


def test_n_best(run, checkpoint):
    status, out, err = run(
        "translate", "--checkpoint", checkpoint, "--text", "abcd", "--text", "fg", "--n-best", 3, "--length-penalty", 1
    )
    assert status == 0, err
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows] == ["1"] * 3 + ["2"] * 3
    model, tokenizer, special = load_trained(checkpoint, Transformer)
    end = tokenizer.token_to_id(special["eos_token"])
    ids = torch.tensor([[*tokenizer.encode("abcd").ids, end]])
    found = beam_search(
        model, ids, torch.ones_like(ids), start_id=end, end_id=end, n_best=3, length_penalty=wu_penalty(1)
    )[0]
    # both languages have the same letters, and so the same ids
    assert [row[2] for row in rows[:3]] == [tokenizer.decode(hypothesis.ids) for hypothesis in found]
    assert [float(row[1]) for row in rows[:3]] == pytest.approx([h.score for h in found], abs=2e-4)


def test_an_over_long_line_is_cut_with_a_warning(run, checkpoint):
    status, out, err = run("translate", "--checkpoint", checkpoint, "--text", "abc" * 40, "--text", "ab")
    assert status == 0
    assert len(out.splitlines()) == 2
    assert "is 121 tokens: its first 64 are translated" in err


@pytest.mark.slow
def test_scores_on_two_ranks_are_those_on_one(run, checkpoint, root):
    arguments = ["validate", "--ckpt_path", str(checkpoint), "--experiment"]
    assert run(*arguments, "one")[0] == 0
    command = [sys.executable, "-m", "src", *arguments, "two", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    # 7 batches or so: the last step has a rank with nothing but padding
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [(root / f"logs/{n}/version_0/metrics.csv").read_text().splitlines() for n in ("one", "two")]
    one, two = (dict(zip(*(line.split(",") for line in lines), strict=True)) for lines in rows)
    for name in ("val/loss", "val/perplexity", "val/token_accuracy", "val/bleu", "val/chrf"):
        assert float(one[name]) == pytest.approx(float(two[name]), rel=1e-5)
    assert float(one["val/token_accuracy"]) > 0.8


def test_the_test_verb_gives_bleu_by_beam_search(run, checkpoint):
    status, out, err = run("test", "--ckpt_path", checkpoint, "--model.beam", 3)
    assert status == 0, err
    assert "test/bleu" in out
    assert "tok:13a" in out


# ---- average


def test_an_average_of_checkpoints(run, checkpoint, files, tmp_path):
    paths = [checkpoint.with_name(f"step={step}.ckpt") for step in (200, 300, 400)]
    output = tmp_path / "average.ckpt"
    status, out, err = run("average", "--checkpoints", *paths, "--output", output)
    assert status == 0, err
    assert out == f"wrote {output}, the average of 3 checkpoints\n"
    states = [torch.load(path, weights_only=True)["state_dict"] for path in paths]
    averaged = torch.load(output, weights_only=True)
    for name, weight in averaged["state_dict"].items():
        expected = sum(state[name].double() for state in states) / 3
        torch.testing.assert_close(weight, expected.float(), atol=1e-7, rtol=1e-6)
    assert averaged["global_step"] == 400
    assert "optimizer_states" not in averaged
    assert run("translate", "--checkpoint", output, "--text", "abc")[1] == "cba\n"
    assert run("test", "--ckpt_path", output)[0] == 0


# ---- compare


def test_a_better_system_is_found_and_chance_is_not(run, files, tmp_path):
    import random

    rng = random.Random(0)
    words = ["the", "a", "cat", "dog", "house", "tree", "sees", "likes", "big", "small", "red", "old", "under"]
    sentences = [[rng.choice(words) for _ in range(10)] for _ in range(100)]

    def system(name, errors):
        lines = [" ".join("wrong" if rng.random() < errors else w for w in sentence) for sentence in sentences]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return tmp_path / name

    a, b, same, reference = system("a", 0.3), system("b", 0.05), system("c", 0.3), system("r", 0)
    status, out, err = run("compare", "--system", a, "--system", b, "--reference", reference)
    assert status == 0, err
    assert f"BLEU: {b} is significantly better (p = 0.0010) than {a}" in out
    assert "BLEU: nrefs:1|bs:1000|seed:12345|case:mixed|eff:no|tok:13a" in out
    status, out, err = run("compare", "--system", b, "--system", a, "--reference", reference, "--samples", 200)
    assert f"chrF2: {a} is significantly worse" in out
    _, out, _ = run("compare", "--system", a, "--system", same, "--reference", reference)
    assert f"BLEU: {same} is not significantly different" in out


def test_a_byte_order_mark_and_line_ends_cost_no_score(run, tmp_path):
    lines = [f"a rather long sentence,\u2028 the number {i}\x0c of them" for i in range(20)]
    for name, end, mark in (("a", "\r\n", "\ufeff"), ("b", "\n", ""), ("reference", "\n", "\ufeff")):
        (tmp_path / name).write_bytes((mark + "".join(line + end for line in lines)).encode())
    files = [word for name in "ab" for word in ("--system", tmp_path / name)]
    status, out, err = run("compare", *files, "--reference", tmp_path / "reference", "--samples", 20)
    assert status == 0, err
    assert out.count("100.00 ± ") == 4  # BLEU and chrF of both


# ---- bad input


def test_bad_input(run, checkpoint, files, tmp_path):
    short = tmp_path / "short"
    short.write_text("one\n")
    latin = tmp_path / "latin"
    latin.write_bytes("é".encode("latin-1"))
    other = tmp_path / "other.ckpt"
    state = torch.load(checkpoint, weights_only=True)
    torch.save({**state, "model_config": {**state["model_config"], "d_model": 32}}, other)
    for arguments, message in [
        (["translate", "--checkpoint", tmp_path / "no.ckpt"], "there is no checkpoint"),
        (["translate", "--checkpoint", checkpoint, "--input", "nowhere"], "there is no file nowhere"),
        (["translate", "--checkpoint", checkpoint, "--input", latin], "is not UTF-8"),
        (["translate", "--checkpoint", checkpoint, "--text", "a", "--n-best", 9], "--n-best 9 is more than --beam 4"),
        (["translate", "--checkpoint", checkpoint, "--text", "a", "--beam", 0], "no whole number of at least 1"),
        (["translate", "--checkpoint", checkpoint, "--text", "a", "--input", short], "not allowed with argument"),
        (["translate", "--checkpoint", checkpoint, "--max-length", 2, "--min-length", 5], "is less than --min-length"),
        (["compare", "--system", files[0], "--reference", files[1]], "give two or more"),
        (["compare", "--system", files[0], "--system", files[0], "--reference", files[1]], "is named twice"),
        (["compare", "--system", files[0], "--system", short, "--reference", files[1]], "short has 1 lines and"),
        (["average", "--checkpoints", checkpoint, "--output", tmp_path / "o"], "name two or more"),
        (
            ["average", "--checkpoints", checkpoint, other, "--output", tmp_path / "o"],
            "has shape (12, 64) for",
        ),
        (["average", "--checkpoints", checkpoint, checkpoint, "--output", tmp_path / "no" / "o"], "there is no folder"),
    ]:
        status, out, err = run(*arguments)
        assert (status, out) == (2, ""), arguments
        assert message in err
        assert err.count("\n") == 1
