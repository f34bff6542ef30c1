"""Speed of training on documents end to end, beside the same documents padded to the longest of their batch.

    OMP_NUM_THREADS=1 python -m tests.tasks.measure_unpadded --config configs/modern/encoder.yaml

Any option of fit may follow. Three pairs of fresh processes in turns, on the same rows in the same order, not sorted by
length. Real tokens a second of CPU time, which with one thread is hardly longer where other programs run beside it.
"""

import subprocess
import sys
import time
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import lightning as L

from src.cli import training
from src.data.unpadding import unpad

PAIRS, WARMUP, STEPS = 3, 1, 6  # optimizer steps


class Clock(L.Callback):
    """Count the real tokens of the steps behind the first few, and the CPU seconds that they take."""

    def __init__(self) -> None:
        self.tokens, self.padded, self.start = 0, 0, 0.0

    def on_train_batch_end(self, trainer: L.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == WARMUP:
            self.start = time.process_time()
        elif trainer.global_step > WARMUP:
            self.tokens += int(task.count_tokens(batch))
            self.padded += batch["input_ids"].numel()
            self.seconds = time.process_time() - self.start


def measure(kind: str, arguments: list[str]) -> None:
    """Print tokens a second, and the fraction of the tokens that are real."""
    clock, changed = Clock(), unchanged if kind == "padded" else unpad
    short = ["--trainer.max_steps", str(WARMUP + STEPS), "--trainer.limit_val_batches=0", "--trainer.callbacks=[]"]
    with TemporaryDirectory() as folder, patch("src.data.masked_language_modeling.unpad", changed):
        training.main(["fit", *arguments, *short, "--trainer.default_root_dir", folder], [clock])
    print(f"{clock.tokens / clock.seconds} {clock.tokens / clock.padded}", file=sys.stderr)


def unchanged(batch: dict[str, Any], rows: int) -> dict[str, Any]:
    return batch


if __name__ == "__main__":
    if sys.argv[1] in ("padded", "unpadded"):
        measure(sys.argv[1], sys.argv[2:])
        raise SystemExit
    ratios = []
    for _ in range(PAIRS):
        found = {}
        for kind in ("padded", "unpadded"):
            command = [sys.executable, "-m", "tests.tasks.measure_unpadded", kind, *sys.argv[1:]]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[kind] = [float(value) for value in done.stderr.split()[-2:]]
        ratios.append(found["unpadded"][0] / found["padded"][0])
        speeds = ", ".join(f"{kind} {speed:,.0f} tokens/s ({real:.0%} real)" for kind, (speed, real) in found.items())
        print(f"{speeds}: {ratios[-1]:.2f}", flush=True)
    print(f"median {median(ratios):.2f}")
