"""Train GPTs of several widths at several learning rates, with and without muP, and draw what docs/modern.md shows.

    OMP_NUM_THREADS=1 python -m docs.width AdamW        or Muon: half an hour each on one core; needs matplotlib, of the
                                                        extra `sweep`

Two blocks with heads of width 32, on the bytes of the embedded articles. At one of the rates it is also measured how
far the output of the blocks and the logits are from where they were after a few steps: the coordinate check of Yang et
al. 2022, appendix D.1. By muP this does not depend on the width.
"""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from statistics import fmean

import matplotlib as mpl
import torch

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor
from torch.optim import AdamW, Optimizer

from docs.figures import save
from src.data.embedded import articles
from src.models import GPT, GPTConfig
from src.optim import Muon, parameter_groups, scale_rates

WIDTHS, BASE, HEAD = (64, 128, 256, 512), 64, 32
SEEDS, STEPS, WARMUP = (0, 1, 2), 150, 15
ROWS, LENGTH = 8, 64
CHECKED = 8  # steps of the coordinate check
KINDS = {"as it is": None, "muP": BASE}
COLORS = plt.get_cmap("viridis")([0.0, 0.3, 0.6, 0.9])


@dataclass(frozen=True)
class Tried:
    """An optimizer, the rates at which networks are trained, and that of the coordinate check."""

    make: Callable[..., Optimizer]
    rates: list[float]
    check_rate: float
    image: str


TRIED = {
    "AdamW": Tried(
        partial(AdamW, betas=(0.9, 0.95), weight_decay=0.1), [2.0**-n for n in range(11, 4, -1)], 2.0**-9, "width.png"
    ),
    "Muon": Tried(Muon, [2.0**-n for n in range(9, 2, -1)], 2.0**-7, "width_muon.png"),
}


def network(width: int, mup_width: int | None, seed: int) -> GPT:
    """Make a GPT with initial values of a seed."""
    torch.manual_seed(seed)
    return GPT(
        GPTConfig(
            vocab_size=256,
            max_seq_len=LENGTH,
            d_model=width,
            n_heads=width // HEAD,
            n_layers=2,
            positions="rotary",
            init="width",
            mup_width=mup_width,
            dropout=0.0,
            attention_dropout=0.0,
        )
    )


def optimizer_of(model: GPT, make: Callable[..., Optimizer], rate: float) -> Optimizer:
    """Make an optimizer with the rates of the model's groups."""
    made = make(parameter_groups(model), rate)
    scale_rates(made)
    return made


def batches(text: Tensor, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Give rows from anywhere, and what follows each of their bytes: (ROWS, LENGTH) each."""
    drawn = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(len(text) - LENGTH, (ROWS, 1), generator=drawn)
        rows = text[starts + torch.arange(LENGTH + 1)]
        yield rows[:, :-1], rows[:, 1:]


def loss_of(model: GPT, rows: Tensor, labels: Tensor) -> Tensor:
    """Compute the mean cross-entropy in nats per byte."""
    return model(rows, labels=labels) / labels.numel()


def train(model: GPT, optimizer: Optimizer, seed: int, text: Tensor, held_out: Tensor) -> float:
    """Train, and give the loss over rows that are held out."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for step, (rows, labels) in enumerate(islice(batches(text, seed), STEPS)):
        factor = min((step + 1) / WARMUP, (STEPS - step) / (STEPS - WARMUP))
        for group, peak in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = peak * factor
        optimizer.zero_grad()
        loss_of(model, rows, labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        return fmean(float(loss_of(model, *batch)) for batch in islice(batches(held_out, 1), 40))


def coordinates(model: GPT, optimizer: Optimizer, text: Tensor) -> tuple[float, float]:
    """Give how far the output of the blocks, and the logits, have moved after a few steps: root mean squares."""
    seen: list[Tensor] = []
    model.final_norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    rows, _ = next(batches(text, 1))

    def look() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            logits = model(rows)
        return seen[-1], logits

    before = look()
    for batch in islice(batches(text, 0), CHECKED):
        optimizer.zero_grad()
        loss_of(model, *batch).backward()
        optimizer.step()
    stream, logits = (float((b - a).square().mean().sqrt()) for a, b in zip(before, look(), strict=True))
    return stream, logits


def draw_losses(axes: Axes, title: str, rates: list[float], losses: dict[int, list[float]]) -> None:
    """Draw the losses of each width over rates, with a mark at the lowest."""
    for (width, values), color in zip(losses.items(), COLORS, strict=True):
        axes.plot(rates, values, color=color, marker=".", label=str(width))
        best = min(range(len(rates)), key=values.__getitem__)
        axes.plot(rates[best], values[best], color=color, marker="o", markersize=10)
    axes.set(title=title, xscale="log", xlabel="learning rate", ylabel="loss on held-out bytes, nats")
    axes.legend(title="width")


def main(name: str) -> None:
    tried = TRIED[name]
    text = torch.frombuffer(bytearray("\n\n".join(text for _, text in articles()).encode()), dtype=torch.uint8).long()
    text, held_out = text[: -len(text) // 20], text[-len(text) // 20 :]
    figure, (left, *right) = plt.subplots(1, 3, figsize=(15, 4.5))
    for (kind, mup_width), axes in zip(KINDS.items(), right, strict=True):

        def made(width: int, rate: float, seed: int, mup_width: int | None = mup_width) -> tuple[GPT, Optimizer]:
            model = network(width, mup_width, seed)
            return model, optimizer_of(model, tried.make, rate)

        moved = list(zip(*(coordinates(*made(width, tried.check_rate, 0), text) for width in WIDTHS), strict=True))
        line = "-" if mup_width else "--"
        for what, values, color in zip(("output of the blocks", "logits"), moved, ("#1f4e9c", "#d1661b"), strict=True):
            left.plot(WIDTHS, values, line, color=color, marker="o", label=f"{what}, {kind}")
            print(f"{kind}: {what} moved by", *(f"{value:.3f}" for value in values), flush=True)
        losses: dict[int, list[float]] = {}
        for width in WIDTHS:
            losses[width] = [
                fmean(train(*made(width, rate, seed), seed, text, held_out) for seed in SEEDS) for rate in tried.rates
            ]
            best = min(zip(losses[width], tried.rates, strict=True))[1]
            shown = " | ".join(f"{mean:.3f}" for mean in losses[width])
            print(f"| {kind} | {width} | {shown} | 2^{math.log2(best):.0f} |", flush=True)
        draw_losses(axes, f"{name}: loss by learning rate, {kind}", tried.rates, losses)
    left.set(
        title=f"Coordinate check: moved in {CHECKED} steps", xlabel="width", xscale="log", yscale="log", ylabel="rms"
    )
    left.set_xticks(WIDTHS, [str(width) for width in WIDTHS])
    left.minorticks_off()
    left.legend(fontsize=8)
    top = max(axes.get_ylim()[1] for axes in right)
    for axes in right:
        axes.set_ylim(min(axes.get_ylim()[0] for axes in right), min(top, 4.0))
    figure.tight_layout()
    save(figure, tried.image)


if __name__ == "__main__":
    main(*sys.argv[1:])
