"""A retriever's checkpoint that commit 2bbffa8 wrote is read, though its classes have moved since."""

from pathlib import Path

from src.encoder import load_encoder
from tests.test_released import released_text

CHECKPOINT = Path(__file__).parent / "released/retriever.ckpt"


def test_it_embeds_and_evaluates(run, tmp_path):
    assert load_encoder(CHECKPOINT).vectors(["the cat", "the dog"]).shape == (2, 8)
    data = ("--data.source", released_text(tmp_path / "text.txt"), "--data.cache_dir", tmp_path / "cache")
    status, out, err = run(
        "validate", "--ckpt_path", CHECKPOINT, *data, "--trainer.default_root_dir", tmp_path / "logs"
    )
    assert status == 0, err
    assert "val/mrr" in out
