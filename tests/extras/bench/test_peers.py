"""The scripts that run other programs read what those print."""

import os
import sys
from itertools import chain
from pathlib import Path

import pytest
from tokenizers import decoders

from docs.extras.bench.peers.joeynmt import write_pieces
from src.extras.bench.peers import External

PEERS = Path(__file__).parents[3] / "docs/extras/bench/peers"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder where a Python program of a name prints what the real one does."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_nanogpt(checkout, monkeypatch):
    monkeypatch.setenv("NANOGPT", str(checkout))
    lines = ["step 0: train loss 4.1999, val loss 4.2000"]
    lines += [f"iter {i}: loss 4.0000, time {5000 if i < 5 else 400 + 10 * i:.2f}ms, mfu 1.23%" for i in range(11)]
    (checkout / "train.py").write_text(f"print({os.linesep.join(lines)!r})")
    mean = sum(400 + 10 * i for i in range(5, 11)) / 6 / 1000
    assert External(PEERS / "nanogpt.sh", "tokens/s").rate() == pytest.approx(8 * 256 / mean, rel=1e-4)


def test_joeynmt(checkout, monkeypatch):
    monkeypatch.setenv("PIECES", str(checkout))
    lines = [
        f"2026-01-01 10:00:0{i} - INFO - joeynmt.training - Epoch   1, Step:      {i}00, Batch Loss:     5.2, "
        f"Batch Acc: 0.05, Tokens per Sec:     {1000 + i}, Lr: 0.000300"
        for i in (1, 4, 6)
    ]
    (checkout / "joeynmt.py").write_text(f"import sys\nprint({os.linesep.join(lines)!r}, file=sys.stderr)")
    assert External(PEERS / "joeynmt.sh", "tokens/s").rate() == 1005  # the first starts everything


def test_pieces_for_joeynmt_are_the_texts(tmp_path):
    texts = {"de": ["Zwei Männer  gehen.", "Ein Hund!"], "en": ["Two men are walking.", "A dog – on grass!"]}
    for language, lines in texts.items():
        for split in ("train", "val"):
            (tmp_path / f"{split}.{language}").write_text("\n".join(lines) + "\n")
    write_pieces(str(tmp_path), ("de", "en"), 300, tmp_path / "pieces")
    vocabulary = (tmp_path / "pieces/vocab.txt").read_text().splitlines()
    assert len(vocabulary) == len(set(vocabulary))
    for language, lines in texts.items():
        for split in ("train", "val"):
            rows = [row.split() for row in (tmp_path / f"pieces/{split}.{language}").read_text().splitlines()]
            assert set(chain(*rows)) <= set(vocabulary)
            assert [decoders.ByteLevel().decode(row) for row in rows] == lines
