"""The encoder of a checkpoint: vectors that do not depend on the batch, and a checksum of all that they depend on."""

import numpy as np
import pytest
import torch

from src.checkpoint import read_checkpoint, save_checkpoint
from src.classifier import classifier_of
from src.encoder import load_encoder
from src.mask_filler import mask_filler_of
from tests.random_networks import TEXT, checkpoint_of

WORDS = TEXT[0].split()
TEXTS = [" ".join(WORDS[i : i + 1 + i % 3]) for i in range(6)] + ["", " ".join(WORDS * 9)]


@pytest.fixture(params=["bert", "longformer"])
def checkpoint(request):
    return checkpoint_of(request.param)[1]


def test_the_checksum_is_that_of_what_the_vectors_depend_on(checkpoint, tmp_path):
    def checksum(name: str, amount: float) -> str:
        weight = checkpoint["state_dict"][f"model.{name}"]
        changed = {**checkpoint["state_dict"], f"model.{name}": weight + amount}
        save_checkpoint({**checkpoint, "state_dict": changed}, tmp_path / "x.ckpt")
        return load_encoder(tmp_path / "x.ckpt").checksum()

    before = checksum("masked_words.dense.weight", 0)
    assert checksum("masked_words.dense.weight", 1e-4) == before  # a head changes nothing
    assert checksum("encoder.blocks.0.feed_forward.up.weight", 1e-4) != before


@pytest.mark.parametrize("name", ["bert", "longformer", "bert_classifier"])
def test_a_text_as_long_as_a_network_whose_positions_are_no_multiple_of_8(name, tmp_path):
    """Rows are padded to such a multiple, but never beyond the last position."""
    save_checkpoint(checkpoint_of(name, max_seq_len=21)[1], tmp_path / "x.ckpt")
    if name == "bert_classifier":
        classifier = classifier_of(read_checkpoint(tmp_path / "x.ckpt"), "x")
        rows, _ = classifier.rows([[text] for text in TEXTS])
        assert classifier.probabilities(rows).isfinite().all()
        return
    encoder = load_encoder(tmp_path / "x.ckpt")
    rows, cut = encoder.rows(TEXTS)
    assert (cut, max(map(len, rows))) == (1, 21)
    assert encoder.encode(rows).isfinite().all()
    filler = mask_filler_of(read_checkpoint(tmp_path / "x.ckpt"), "x")
    assert len(filler.fill([filler.encode("[MASK] " * 19)], 2)[0]) == 19


def test_rows_of_any_order_and_batch_have_the_same_vectors(checkpoint, tmp_path):
    save_checkpoint(checkpoint, tmp_path / "x.ckpt")
    encoder = load_encoder(tmp_path / "x.ckpt")
    rows, cut = encoder.rows(TEXTS)
    assert cut == 1
    together = encoder.encode(rows)
    alone = torch.cat([encoder.encode([row]) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder.encode(rows[::-1], batch_size=2).flip(0), together, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(encoder.vectors(TEXTS), axis=1), 1, atol=1e-6)
