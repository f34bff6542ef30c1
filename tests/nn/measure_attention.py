"""Time and memory of attention by length: the table and the plot of docs/long_context.md.

    OMP_NUM_THREADS=1 python -m tests.nn.measure_attention --record measured.jsonl --output docs/images/long_context.png

Forward and backward pass of one row, in float32. Each measurement has a process of its own, forked from one that has
computed nothing yet, so that its peak of memory is its own. The implementations take turns, in rounds that may be
repeated by running this again: what was measured is kept. Seconds are CPU seconds, medians of the rounds:
with one thread they are hardly longer where other programs run beside it.
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import LongformerConfig
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

from src.nn import KERNELS, AttentionSpan, BlockConfig, GlobalSelfAttention, GlobalTokens, Mask, SelfAttention

HEADS, HEAD_DIM, WINDOW = 8, 64, 128
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
WIDTH = HEADS * HEAD_DIM
Run = Callable[[], Tensor]


def attention(kernel: str, length: int) -> tuple[Run, list[Tensor]]:
    """Queries, keys and values to outputs, with the making of the mask."""
    q, k, v = (torch.randn(1, length, HEADS, HEAD_DIM, requires_grad=True) for _ in range(3))
    span = AttentionSpan(WINDOW if kernel == "sliding_window" else None)
    return (
        lambda: KERNELS[kernel](*(x.transpose(1, 2) for x in (q, k, v)), Mask(length), span, 0.0),
        [q, k, v],
    )


def layer(kernel: str, length: int) -> tuple[Run, list[Tensor]]:
    """A whole layer with its projections; in the window with one global token."""
    x, ids = torch.randn(1, length, WIDTH, requires_grad=True), torch.zeros(1, length, dtype=torch.long)
    if kernel == "dense":
        made: SelfAttention = SelfAttention(BlockConfig(d_model=WIDTH, n_heads=HEADS))
        return lambda: made(x, Mask(length)), [x, *made.parameters()]
    made = GlobalSelfAttention(BlockConfig(d_model=WIDTH, n_heads=HEADS, attention=kernel, window=WINDOW))
    return lambda: made(x, Mask(length, global_tokens=GlobalTokens.at([0], ids, None))), [x, *made.parameters()]


def huggingface(length: int) -> tuple[Run, list[Tensor]]:
    """The layer of `transformers`, with the output projection that there stands outside of it."""
    config = LongformerConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        num_hidden_layers=1,
        attention_window=[2 * WINDOW],
        attention_probs_dropout_prob=0.0,
    )
    made, out = LongformerSelfAttention(config, 0), nn.Linear(WIDTH, WIDTH)
    x, mask = torch.randn(1, length, WIDTH, requires_grad=True), torch.zeros(1, length)
    mask[0, 0] = 10000  # how it says that a token is global
    return lambda: out(made(x, mask, mask < 0, mask > 0, True)[0]), [x, *made.parameters(), *out.parameters()]


CASES: dict[str, Callable[[int], tuple[Run, list[Tensor]]]] = {
    "dense": lambda length: attention("dense", length),
    "flash": lambda length: attention("flash", length),
    "sliding_window": lambda length: attention("sliding_window", length),
    "layer, dense": lambda length: layer("dense", length),
    "layer, window and global token": lambda length: layer("sliding_window", length),
    "layer, HuggingFace's Longformer": huggingface,
}


def memory(what: str) -> float:
    """A line of /proc/self/status, in MiB: VmRSS is now, VmHWM the most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) / 1024


def measure(name: str, length: int) -> dict[str, float]:
    """Seconds and MiB of a forward and backward pass, in a forked process."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        run, inputs = CASES[name](length)
        before, seconds, peak = memory("VmRSS"), [], 0.0
        for _ in range(4):  # the first is a warm-up, where there is time for more
            start = time.process_time()
            torch.autograd.grad(run().sum(), inputs, allow_unused=True)
            seconds.append(time.process_time() - start)
            peak = peak or memory("VmHWM")
            if seconds[0] > 3:
                break
        found = {"seconds": min(seconds), "mib": peak - before}
        os.write(write, json.dumps(found).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return json.loads(said)


def plot(figures: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    """Seconds and memory over the length, on logarithmic scales."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axis, (unit, title) in zip(axes, {"seconds": "CPU seconds", "mib": "peak memory, MiB"}.items(), strict=True):
        for name, by_length in figures.items():
            style = "--" if name.startswith("layer") else ":" if name == "flash" else "-"  # flash lies upon dense
            size = 9 if name == "flash" else 4
            axis.plot(
                list(by_length),
                [f[unit] for f in by_length.values()],
                style,
                marker="o",
                ms=size,
                mfc="none",
                label=name,
            )
        axis.set(xscale="log", yscale="log", xlabel="tokens", title=title)
        axis.set_xticks(LENGTHS, [f"{n:,}" for n in LENGTHS])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.suptitle(f"Forward and backward pass, {HEADS} heads of {HEAD_DIM}, window {WINDOW} a side")
    figure.savefig(path, dpi=100)


def main() -> None:
    """Print the tables, and save the plot."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--record", type=Path, required=True)
    options.add_argument("--output", type=Path, required=True)
    options.add_argument("--lengths", type=int, nargs="*", default=LENGTHS)
    options.add_argument("--cases", nargs="*", default=list(CASES))
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    with chosen.record.open("a") as record:
        for _ in range(chosen.rounds):
            for length in chosen.lengths:
                for name in chosen.cases:
                    record.write(json.dumps({"name": name, "length": length, **measure(name, length)}) + "\n")
                    record.flush()
    rows = [json.loads(line) for line in chosen.record.read_text().splitlines()]
    figures = {
        name: {n: medians([row for row in rows if (row["name"], row["length"]) == (name, n)]) for n in LENGTHS}
        for name in CASES
    }
    for unit, form in (("seconds", "{:.3f}"), ("mib", "{:,.0f}")):
        print(f"\n| {unit} | " + " | ".join(f"{n:,}" for n in LENGTHS) + " |")
        print("| --- " * (len(LENGTHS) + 1) + "|")
        for name, by_length in figures.items():
            print(f"| {name} | " + " | ".join(form.format(f[unit]) for f in by_length.values()) + " |")
    print("measured so often:", sorted({f["rounds"] for by_length in figures.values() for f in by_length.values()}))
    plot(figures, chosen.output)


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure; not a number where nothing was measured."""
    found = {u: statistics.median(row[u] for row in rows) if rows else math.nan for u in ("seconds", "mib")}
    return {**found, "rounds": len(rows)}


if __name__ == "__main__":
    main()
