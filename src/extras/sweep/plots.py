"""Plots of a sweep, as PNG files."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from src.extras.sweep.definition import Axis, Sweep
from src.extras.sweep.results import CellResult, RunResult, estimate

# metric -> how a reader would call it
NAMES = {
    "val/loss": "validation loss (nats)",
    "val/perplexity": "validation perplexity",
    "val/bits_per_byte": "validation loss (bits per byte)",
    "val/bleu": "validation BLEU",
}
MOST_CELLS = 40  # that fit under each other
MOST_CURVES = 16
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#888888")  # Okabe and Ito
STYLES = [(colour, dash) for dash, colour in product(("-", "--"), COLOURS)]
WIDTH_INCHES = 9.0


def plot_final(cells: Sequence[CellResult], sweep: Sweep, path: Path) -> None:
    """The metric at the end: a row a cell, the best on top, with its seeds and the interval of its mean."""
    cells = cells[:MOST_CELLS]
    figure, axes = _figure(1.2 + 0.32 * len(cells))
    for row, cell in enumerate(cells):
        axes.plot(
            [run.value for run in cell.runs if run.value is not None],
            [row] * len(cell.runs),
            "o",
            color="#888888",
            markersize=4,
        )
        mean = cell.estimate
        axes.errorbar(mean.mean, row, xerr=mean.half_width, fmt="D", color=COLOURS[0], markersize=5, capsize=4)
    axes.set_yticks(range(len(cells)), [cell.label for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.set_xlabel(f"{_name(sweep)} at the last step")
    axes.set_title("mean with 95% interval (blue), single seeds (grey)", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    _save(figure, path)


def plot_curves(cells: Sequence[CellResult], sweep: Sweep, path: Path) -> None:
    """The metric by steps: the mean over seeds, and its 95% interval as a band."""
    cells = cells[:MOST_CURVES]
    figure, axes = _figure(5.5)
    for (colour, dash), cell in zip(STYLES, cells, strict=False):
        by_step: dict[int, list[float]] = defaultdict(list)
        for run in cell.runs:
            for step, value in run.record["curve"]:
                by_step[step].append(value)
        steps = sorted(step for step, values in by_step.items() if len(values) == len(cell.runs))
        means = [estimate(by_step[step]) for step in steps]
        middle = [mean.mean for mean in means]
        axes.plot(steps, middle, color=colour, linestyle=dash, marker=".", label=cell.label)
        low = [mean.mean - (mean.half_width or 0.0) for mean in means]
        high = [mean.mean + (mean.half_width or 0.0) for mean in means]
        axes.fill_between(steps, low, high, color=colour, alpha=0.08, linewidth=0)
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel(_name(sweep))
    axes.set_title("mean over seeds with 95% interval; the best first", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    _save(figure, path)


def plot_number(runs: Sequence[RunResult], sweep: Sweep, key: str, path: Path) -> None:
    """The metric against a numeric parameter, a line for each combination of the others."""
    lines: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        chosen = {axis.key: choice.label for axis, choice in sweep.chosen(run.parameters)}
        number = chosen.pop(key, None)
        if run.value is not None and isinstance(number, int | float):
            lines[", ".join(map(str, chosen.values()))][number].append(run.value)
    figure, axes = _figure(5.5)
    for (colour, dash), (label, points) in zip(STYLES, lines.items(), strict=False):
        numbers = sorted(points)
        means = [estimate(points[number]) for number in numbers]
        axes.errorbar(
            numbers,
            [mean.mean for mean in means],
            yerr=[mean.half_width or 0.0 for mean in means],
            color=colour,
            linestyle=dash,
            marker=".",
            capsize=3 if any(mean.half_width for mean in means) else 0,
            label=label or None,
        )
    numbers = [number for points in lines.values() for number in points]
    if min(numbers) > 0 and max(numbers) >= 10 * min(numbers):
        axes.set_xscale("log")
    axes.set_xlabel(key)
    axes.set_ylabel(f"{_name(sweep)} at the last step")
    most = max(len(values) for points in lines.values() for values in points.values())
    axes.set_title("mean over seeds with 95% interval" if most > 1 else "each point is one run", fontsize=10)
    axes.grid(alpha=0.3)
    if any(lines):
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    _save(figure, path)


def numeric_keys(sweep: Sweep) -> list[str]:
    """The keys whose values are three numbers or more."""
    by_key: dict[str, list[Axis]] = defaultdict(list)
    for axis in sweep.all_axes():
        by_key[axis.key].append(axis)
    return [key for key, axes in by_key.items() if all(_is_numeric(axis) for axis in axes)]


def _is_numeric(axis: Axis) -> bool:
    labels = [choice.label for choice in axis.choices]
    return axis.range is not None or (
        len(labels) > 2 and all(isinstance(x, int | float) and not isinstance(x, bool) for x in labels)
    )


def _name(sweep: Sweep) -> str:
    return NAMES.get(sweep.metric, sweep.metric)


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110)
