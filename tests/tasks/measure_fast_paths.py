"""Losses of whole runs by the fast paths and by torch's plain ones, at equal tokens, for docs/benchmarks.md.

    python -m tests.tasks.measure_fast_paths --config configs/shakespeare_char.yaml --data.source input.txt

Any option of fit may follow. Three seeds each, in turns.
"""

import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from unittest.mock import patch

from torch.nn.functional import cross_entropy, linear

from src.cli import main
from tests.distributed.jobs import losses

SEEDS = 3


def with_logits(hidden, weight, labels, label_smoothing=0.0, bias=None, softcap=None):
    """The loss of an output layer as torch has it, from all logits."""
    assert softcap is None
    logits = linear(hidden, weight, bias).flatten(0, -2)
    return cross_entropy(logits, labels.flatten(), reduction="sum", label_smoothing=label_smoothing)


PLAIN = {
    "src.nn.cross_entropy.summed_cross_entropy": with_logits,
    "src.nn.cpu.MOST_PAIRS": 0,
    "src.nn.cpu._by_torch": lambda *_: True,
}


def final_loss(arguments: list[str], seed: int, *, fast: bool) -> float:
    """Of the last validation, in nats."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        if not fast:
            for name, value in PLAIN.items():
                stack.enter_context(patch(name, value))
        main(["fit", *arguments, "--seed_everything", str(seed), "--trainer.default_root_dir", folder])
        (run,) = Path(folder).glob("*/version_0")
        return losses(run, "val/loss")[-1]


if __name__ == "__main__":
    found: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(SEEDS):
        for fast, values in found.items():
            values.append(final_loss(sys.argv[1:], seed, fast=fast))
    for fast, values in found.items():
        each = ", ".join(f"{value:.4f}" for value in values)
        print(f"{'fast' if fast else 'plain'}: {each}; mean {fmean(values):.4f}, deviation {stdev(values):.4f}")
