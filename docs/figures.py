"""Draw the figures of docs/reading.md, docs/activations.md and docs/optimizers.md from the code itself.

python -m docs.figures        writes docs/images/*.png; needs matplotlib, of the extra `sweep`
"""

from pathlib import Path

import matplotlib as mpl
import torch

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from torch import Tensor, nn

from src.callbacks.figures import attention_maps
from src.models import GPT, BERTConfig, BERTEncoder, GPTConfig
from src.models.longformer import LongformerConfig, LongformerEncoder
from src.nn import ACTIVATIONS, GATED, activation
from src.optim import Constant, Cosine, InverseSquareRoot, Linear, Lion, Momentum, Nesterov, WarmupStableDecay

IMAGES = Path(__file__).parent / "images"
CURVE, SLOPE = "#1f4e9c", "#d1661b"


def save(figure: plt.Figure, name: str) -> None:
    """Write a figure, small enough for a page."""
    figure.savefig(IMAGES / name, dpi=80, bbox_inches="tight", pil_kwargs={"optimize": True})
    plt.close(figure)
    print(IMAGES / name)


def draw_activation(axes: Axes, name: str) -> None:
    """A curve and its derivative, by autograd."""
    x = torch.linspace(-4, 4, 801, dtype=torch.float64, requires_grad=True)
    y = activation(name).double()(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    at = x.detach()
    jumps = slope.diff().abs() > 0.1  # at a kink there is no slope to draw
    broken = torch.cat([slope[:1], slope[1:].masked_fill(jumps, torch.nan)])
    axes.axhline(0, color="0.8", linewidth=0.8)
    axes.axvline(0, color="0.8", linewidth=0.8)
    axes.plot(at, y.detach(), color=CURVE, label="value")
    axes.plot(at, broken, color=SLOPE, linestyle="--", label="derivative")
    axes.set(title=name, xlim=(-4, 4), ylim=(-1.3, 3.2), xlabel="x")


def activations() -> None:
    """All plain activations; a gated one is that of its gate times the other projection."""
    names = [name for name in ACTIVATIONS if name not in GATED]
    figure, grid = plt.subplots(2, 5, figsize=(15, 6.5), sharex=True, sharey=True)
    for axes, name in zip(grid.flat, names, strict=True):
        draw_activation(axes, name)
    grid[0, 0].legend(loc="upper left")
    figure.tight_layout()
    save(figure, "activations.png")


def valley(point: Tensor) -> Tensor:
    """A quadratic valley, 20 times as steep across as along."""
    return 0.5 * (point[0] ** 2 + 20 * point[1] ** 2)


OPTIMIZERS = {  # with a learning rate for the valley
    "SGD": (torch.optim.SGD, 0.08),
    "Momentum": (Momentum, 0.02),
    "Nesterov": (Nesterov, 0.02),
    "Adagrad": (torch.optim.Adagrad, 0.6),
    "RMSprop": (torch.optim.RMSprop, 0.05),
    "Adadelta": (torch.optim.Adadelta, 30.0),
    "Adam": (torch.optim.Adam, 0.15),
    "NAdam": (torch.optim.NAdam, 0.15),
    "Lion": (Lion, 0.05),
}


def draw_path(axes: Axes, name: str, steps: int = 60) -> None:
    """The path of an optimizer down the valley."""
    kind, lr = OPTIMIZERS[name]
    point = nn.Parameter(torch.tensor([-2.6, 0.9]))
    optimizer, path = kind([point], lr=lr), [point.tolist()]
    for _ in range(steps):
        optimizer.zero_grad()
        valley(point).backward()
        optimizer.step()
        path.append(point.tolist())
    x, y = torch.meshgrid(torch.linspace(-3, 1, 200), torch.linspace(-1.1, 1.1, 200), indexing="xy")
    axes.contour(x, y, valley(torch.stack([x, y])), levels=[0.05, 0.3, 1, 2.5, 5, 9], colors="0.75", linewidths=0.8)
    axes.plot(*zip(*path, strict=True), color=CURVE, marker=".", markersize=4, linewidth=1)
    axes.plot(0, 0, "*", color=SLOPE, markersize=10)
    axes.set(title=f"{name}, lr {lr:g}", xlim=(-3, 1), ylim=(-1.1, 1.1))


def optimizers() -> None:
    """Sixty steps of each optimizer of single weights."""
    figure, grid = plt.subplots(3, 3, figsize=(11, 8), sharex=True, sharey=True)
    for axes, name in zip(grid.flat, OPTIMIZERS, strict=True):
        draw_path(axes, name)
    figure.supxlabel("first weight")
    figure.supylabel("second weight")
    figure.tight_layout()
    save(figure, "optimizers.png")


def schedules(total: int = 1000, warmup: int = 100) -> None:
    """All schedules over one run."""
    kinds = {
        "Constant": Constant(warmup),
        "Linear": Linear(warmup),
        "Cosine, final_factor 0.1": Cosine(warmup, 0.1),
        "WarmupStableDecay, decay_steps 300": WarmupStableDecay(300, warmup),
        "InverseSquareRoot": InverseSquareRoot(warmup),
    }
    figure, axes = plt.subplots(figsize=(9, 4))
    for name, schedule in kinds.items():
        axes.plot([schedule.factor(step, total) for step in range(total)], label=name)
    axes.set(xlabel="optimizer step", ylabel="fraction of the peak learning rate", ylim=(0, 1.05), xlim=(0, total))
    axes.grid(color="0.9")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    save(figure, "schedules.png")


TOKENS = 12
SHAPE = {"vocab_size": 2, "max_seq_len": TOKENS, "d_model": 4, "n_heads": 1, "n_layers": 1}
REAL = torch.arange(TOKENS)[None] < TOKENS - 3  # then padding
MASKS = {  # a network and its inputs beside the token ids
    "causal (GPT)": (GPT(GPTConfig(**SHAPE)), {}),
    "padding behind the text (BERT)": (BERTEncoder(BERTConfig(**SHAPE)), {"attention_mask": REAL.long()}),
    "causal, window 3 (GPT)": (GPT(GPTConfig(**SHAPE, window=3)), {}),
    "causal, padding before a prompt (GPT)": (GPT(GPTConfig(**SHAPE)), {"attention_mask": REAL.flip(1).long()}),
    "causal, documents apart (GPT)": (
        GPT(GPTConfig(**SHAPE)),
        {"documents": torch.tensor([[0] * 4 + [1] * 5 + [2] * 3])},
    ),
    "window 2, token 0 global (Longformer)": (LongformerEncoder(LongformerConfig(**SHAPE, window=2)), {}),
}


def visible(network: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Which keys each query of a network of one block and one head attends to, (query, key)."""
    (weights,) = attention_maps(network, {"input_ids": torch.zeros(1, TOKENS, dtype=torch.long), **inputs}).values()
    return weights[0] > 0


def masks() -> None:
    """The keys that are visible to each query under each mask."""
    figure, grid = plt.subplots(2, 3, figsize=(11, 7.8), sharex=True, sharey=True)
    for axes, (name, (network, inputs)) in zip(grid.flat, MASKS.items(), strict=True):
        axes.pcolormesh(visible(network, inputs), cmap=ListedColormap(["0.93", CURVE]), edgecolors="white", linewidth=1)
        axes.set_title(name, fontsize=10)
        axes.set(aspect="equal", xticks=torch.arange(TOKENS) + 0.5, yticks=torch.arange(TOKENS) + 0.5)
        axes.set(xticklabels=range(TOKENS), yticklabels=range(TOKENS))
        axes.tick_params(length=0)
    grid[0, 0].invert_yaxis()
    figure.supxlabel("key")
    figure.supylabel("query")
    figure.tight_layout(h_pad=2)
    save(figure, "masks.png")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    masks()
    activations()
    optimizers()
    schedules()
