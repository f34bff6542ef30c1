"""Which checkpoints a run may go on from, or start from."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from src.checkpoint import check_bytes, check_compatible, read_checkpoint, read_header, save_checkpoint
from src.errors import InputError
from src.models import GPTConfig

CONFIG = GPTConfig(vocab_size=61, max_seq_len=40, d_model=32, n_heads=4, n_layers=2)


def checkpoint(config: GPTConfig, without: tuple[str, ...] = ()):
    shape = {name: value for name, value in asdict(config).items() if name not in without}
    return {"architecture": "gpt", "model_config": shape, "tokenizer": "{}"}


def check(held, config: GPTConfig) -> None:
    check_compatible(held, "gpt", asdict(config), "{}")


def test_a_checkpoint_that_does_not_know_newer_fields():
    older = checkpoint(CONFIG, ("positions", "attention", "window", "dilation"))
    check(older, CONFIG)
    with pytest.raises(InputError, match="the checkpoint has positions learned, this configuration rotary"):
        check(older, replace(CONFIG, positions="rotary"))


def test_what_no_weight_depends_on_may_change():
    check(checkpoint(CONFIG), replace(CONFIG, attention="sliding_window", window=4, dropout=0.0))
    rotary = replace(CONFIG, positions="rotary")
    check(checkpoint(rotary), replace(rotary, max_seq_len=400))
    with pytest.raises(InputError, match="the checkpoint has max_seq_len 40, this configuration 400: set it to 40"):
        check(checkpoint(CONFIG), replace(CONFIG, max_seq_len=400))


def test_the_header_is_read_without_the_weights():
    """Of a released checkpoint in which a byte of the weights is another, and one of the header."""
    released = Path(__file__).parent / "released/gpt.ckpt"
    whole = read_checkpoint(released)
    header = read_header(released)
    assert header.keys() == whole.keys() - {"state_dict", "plain_weights", "optimizer_states"}
    assert header["config"] == whole["config"]


def test_damage_to_the_weights_is_found_when_they_are_read_and_that_to_the_header_at_once(tmp_path):
    released, path = Path(__file__).parent / "released/gpt.ckpt", tmp_path / "gpt.ckpt"
    weights = max(read_checkpoint(released)["state_dict"].values(), key=torch.Tensor.numel)
    content = bytearray(released.read_bytes())
    place = content.index(weights.numpy().tobytes()[:64])
    content[place] ^= 1
    path.write_bytes(content)
    read_header(path)
    for read in (read_checkpoint, check_bytes):
        with pytest.raises(InputError, match="truncated or damaged"):
            read(path)
    content[content.index(b"model_config")] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="truncated or damaged"):
        read_header(path)


def test_what_is_mapped_is_what_is_read(tmp_path):
    content = read_checkpoint(Path(__file__).parent / "released/gpt.ckpt")
    save_checkpoint(content, tmp_path / "a.ckpt")
    mapped = read_checkpoint(tmp_path / "a.ckpt", mapped=True)["state_dict"]
    assert all(torch.equal(mapped[name], weight) for name, weight in content["state_dict"].items())
