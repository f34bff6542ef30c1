"""Which checkpoints a run may go on from, or start from."""

from dataclasses import asdict, replace

import pytest

from src.checkpoint import check_compatible
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
