"""The encoder of a checkpoint: vectors that do not depend on the batch, and a checksum of all that they depend on."""

import numpy as np
import pytest
import torch

from src.checkpoint import save_checkpoint
from src.encoder import load_encoder
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
