"""The encoder of a retriever: vectors that do not depend on the batch, and a checksum of all that they depend on."""

import numpy as np
import torch

from src.checkpoint import read_checkpoint, save_checkpoint
from src.encoder import load_encoder
from tests.extras.retrieval.conftest import NOUNS

TEXTS = [f"The {noun} was old." * (i + 1) for i, noun in enumerate(NOUNS[:5])] + ["", " ".join(NOUNS * 9)]


def test_the_checksum_is_that_of_what_the_vectors_depend_on(retriever, tmp_path):
    encoder = load_encoder(retriever)
    assert encoder.checksum() == load_encoder(tmp_path / "bert.ckpt").checksum()  # heads and pooler change nothing
    checkpoint = read_checkpoint(retriever)
    weight = checkpoint["state_dict"]["model.encoder.blocks.0.feed_forward.up.weight"]
    weight[3, 4] += 1e-4
    save_checkpoint(checkpoint, tmp_path / "changed.ckpt")
    assert load_encoder(tmp_path / "changed.ckpt").checksum() != encoder.checksum()


def test_rows_of_any_order_and_batch_have_the_same_vectors(retriever):
    encoder = load_encoder(retriever)
    rows, cut = encoder.rows(TEXTS)
    assert cut == 1
    together = encoder.means(rows)
    alone = torch.cat([encoder.means([row]) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.means(rows[::-1], batch_size=2).flip(0), together, atol=1e-5, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(encoder.vectors(TEXTS), axis=1), 1, atol=1e-6)
