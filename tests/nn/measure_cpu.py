"""Measure what each fast path of src/nn/cpu.py saves of a training step.

    python -m tests.nn.measure_cpu [--rounds 5] [--only dropout]

Steps with and without a path in turns, in CPU seconds of this process, so that other processes matter little. A step is
forward, loss, backward, clipping and AdamW, on random tokens.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from src.models import BERT, GPT, BERTConfig, GPTConfig, Transformer, TransformerConfig
from src.nn import summed_cross_entropy

WITHOUT: dict[str, tuple[str, Any]] = {  # path -> what is patched to leave it out
    "dropout": ("src.nn.cpu._by_torch", lambda *_: True),
    "attention": ("src.nn.cpu.MOST_PAIRS", 0),
}
V = 4096
Losses = tuple[nn.Module, Callable[[], Tensor]]


def ids(*shape: int) -> Tensor:
    return torch.randint(V, shape)


def gpt(dropout: float) -> Losses:
    """configs/gpt.yaml."""
    model = GPT(GPTConfig(V, 256, 128, 4, 4, dropout=dropout, attention_dropout=0.0, positions="rotary"))
    tokens = ids(8, 256)
    return model, lambda: summed_cross_entropy(model.hidden(tokens), model.head.weight, tokens)


def bert(dropout: float) -> Losses:
    """configs/bert.yaml; every seventh position is predicted."""
    config = BERTConfig(V, 128, d_model=128, n_heads=2, n_layers=2, norm="pre", dropout=dropout, attention_dropout=0.0)
    model = BERT(config)
    tokens, positions = ids(16, 128), torch.arange(0, 128, 7).expand(16, -1)
    attention_mask = (torch.arange(128) < torch.randint(100, 129, (16, 1))).long()

    def loss() -> Tensor:
        words, _ = model(tokens, attention_mask=attention_mask, masked_positions=positions)
        return nn.functional.cross_entropy(words.flatten(0, 1).float(), tokens.gather(1, positions).flatten())

    return model, loss


def multi30k(dropout: float) -> Losses:
    """configs/multi30k.yaml: 64 pairs of 16 tokens a batch."""
    model = Transformer(
        TransformerConfig(
            V,
            V,
            max_seq_len=256,
            d_model=256,
            n_heads=4,
            n_encoder_layers=3,
            n_decoder_layers=3,
            d_ff=1024,
            dropout=dropout,
            norm="pre",
            tie_embeddings=True,
        )
    )
    source, target = ids(64, 16), ids(64, 16)

    def loss() -> Tensor:
        hidden = model.decode(target, model.encode(source))
        return summed_cross_entropy(hidden, model.head.weight, target, 0.1)

    return model, loss


CASES = [  # path, network, dropout, precision
    ("dropout", gpt, 0.1, torch.float32),
    ("dropout", bert, 0.1, torch.float32),
    ("dropout", multi30k, 0.2, torch.float32),
    ("dropout", multi30k, 0.2, torch.bfloat16),
    ("attention", gpt, 0.0, torch.bfloat16),
    ("attention", bert, 0.0, torch.bfloat16),
    ("attention", multi30k, 0.2, torch.bfloat16),
]


def training_step(model: nn.Module, loss: Callable[[], Tensor], dtype: torch.dtype) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype) if dtype != torch.float32 else nullcontext():
            found = loss()
        found.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def seconds(step: Callable[[], None], steps: int) -> float:
    start = time.process_time()
    for _ in range(steps):
        step()
    return (time.process_time() - start) / steps


def measure(path: str, step: Callable[[], None], rounds: int) -> tuple[float, list[float]]:
    """Seconds of a step with the path, and the fraction of the step without it that each round saves."""
    name, value = WITHOUT[path]
    step()
    steps = max(1, round(1.0 / seconds(step, 1)))
    times, saved = [], []
    for _ in range(rounds):
        times.append(seconds(step, steps))
        with patch(name, value):
            saved.append(1 - times[-1] / seconds(step, steps))
    return median(times), saved


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--only", default="")
    chosen = options.parse_args()
    torch.manual_seed(0)
    for path, network, dropout, dtype in CASES:
        name = f"{path}: {network.__name__}, {str(dtype).removeprefix('torch.')}, dropout {dropout}"
        if chosen.only in name:
            cpu, saved = measure(path, training_step(*network(dropout), dtype), chosen.rounds)
            low, high = min(saved), max(saved)
            print(f"| {name} | {1000 * cpu:.1f} | {median(saved):.1%} ({low:.1%} to {high:.1%}) |", flush=True)
