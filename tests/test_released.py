"""A checkpoint that commit 2bbffa8 wrote is read, resumed and decoded."""

from pathlib import Path

import torch

CHECKPOINT = Path(__file__).parent / "released/gpt.ckpt"
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "the", "dog", "run", "far", "away"]


def released_text(path: Path) -> Path:
    """Write what it was trained on."""
    rows = [
        [" ".join(WORDS[(i * j + k * j + j * j) % 13] for j in range(6 + i % 5)) for k in range(4)] for i in range(60)
    ]
    path.write_text("\n\n".join(" ".join(text.capitalize() + "." for text in row) for row in rows))
    return path


def test_it_generates_evaluates_and_goes_on(run, tmp_path):
    status, out, err = run("generate", "--checkpoint", CHECKPOINT, "--prompt", "The cat", "--max-new-tokens", 3)
    assert (status, out.startswith("The cat")) == (0, True), err
    data = ("--data.source", released_text(tmp_path / "text.txt"), "--data.cache_dir", tmp_path / "cache")
    status, out, err = run(
        "validate", "--ckpt_path", CHECKPOINT, *data, "--trainer.default_root_dir", tmp_path / "logs"
    )
    assert status == 0, err
    assert "2.92" in out  # val/loss, as it was then
    content = torch.load(CHECKPOINT, weights_only=True)
    del content["data_fingerprint"]  # of the files that data were prepared in then
    torch.save(content, tmp_path / "gpt.ckpt")
    more = ("--trainer.max_steps", 6, "--trainer.default_root_dir", tmp_path / "logs")
    status, _, err = run("fit", "--ckpt_path", tmp_path / "gpt.ckpt", *data, *more)
    assert status == 0, err
    last = next((tmp_path / "logs/gpt").glob("*/checkpoints/last.ckpt"))
    assert torch.load(last, weights_only=True)["global_step"] == 6
