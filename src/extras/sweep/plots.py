"""Plots of a sweep, as PNG and as SVG, in which a mark says its values under the pointer: ``data-tip``."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from src.extras.sweep.axes import Axis
from src.extras.sweep.definition import LADDER, Sweep
from src.extras.sweep.ladder import layers
from src.extras.sweep.results import CellResult, RunResult, estimate, shown
from src.extras.sweep.scaling_law import BEYOND, ScalingCurve

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
STYLES = [{"color": colour, "linestyle": dash, "marker": "."} for dash, colour in product(("-", "--"), COLOURS)]
WIDTH_INCHES = 9.0
TIP = "tip: "  # begins the id of a mark that says something


def plot_final(cells: Sequence[CellResult], sweep: Sweep, path: Path) -> None:
    """Plot the metric at the end: a row a cell, the best on top, with its seeds and the interval of its mean."""
    cells = cells[:MOST_CELLS]
    with _plot(path, 1.2 + 0.32 * len(cells), "mean with 95% interval (blue), single seeds (grey)") as axes:
        for row, cell in enumerate(cells):
            mean = cell.estimate
            bar = axes.errorbar(
                mean.mean, row, xerr=mean.half_width, fmt="D", color=COLOURS[0], markersize=5, capsize=4
            )
            width = "" if mean.half_width is None else f" ± {shown(mean.half_width)}"
            bar.lines[0].set_gid(f"{TIP}{cell.label}: {shown(mean.mean)}{width}")
            for run in cell.runs:
                assert run.value is not None
                tip = f"{TIP}{cell.label}, seed {run.seed}: {shown(run.value)}"
                axes.plot([run.value], [row], "o", color="#888888", markersize=4, gid=tip)
        axes.set_yticks(range(len(cells)), [cell.label for cell in cells])
        axes.set_ylim(len(cells) - 0.5, -0.5)
        axes.set_xlabel(_judged_name(sweep))


def plot_curves(cells: Sequence[CellResult], sweep: Sweep, path: Path) -> None:
    """Plot the metric by steps: the mean over seeds, and its 95% interval as a band."""
    with _plot(path, 5.5, "mean over seeds with 95% interval; the best first") as axes:
        for style, cell in zip(STYLES, cells[:MOST_CURVES], strict=False):
            by_step: dict[int, list[float]] = defaultdict(list)
            for run in cell.runs:
                for step, value in run.record["curve"]:
                    by_step[step].append(value)
            steps = sorted(step for step, values in by_step.items() if len(values) == len(cell.runs))
            means = [estimate(by_step[step]) for step in steps]
            axes.plot(steps, [mean.mean for mean in means], **style, label=cell.label)  # type: ignore[arg-type]
            for step, mean in zip(steps, means, strict=True):
                tip = f"{TIP}{cell.label}, step {step:,}: {shown(mean.mean)}"
                axes.plot([step], [mean.mean], ".", color=style["color"], gid=tip)
            low = [mean.mean - (mean.half_width or 0.0) for mean in means]
            high = [mean.mean + (mean.half_width or 0.0) for mean in means]
            axes.fill_between(steps, low, high, color=style["color"], alpha=0.08, linewidth=0)
        axes.set_xlabel("optimizer steps")
        axes.set_ylabel(_name(sweep))


def plot_number(runs: Sequence[RunResult], sweep: Sweep, key: str, path: Path) -> None:
    """Plot the metric against a numeric parameter, a line for each combination of the others."""
    lines: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        chosen = {axis.key: choice.label for axis, choice in sweep.chosen(run.parameters)}
        number = chosen.pop(key, None)
        if run.value is not None and isinstance(number, int | float):
            lines[", ".join(map(str, chosen.values()))][number].append(run.value)
    most = max(len(values) for points in lines.values() for values in points.values())
    with _plot(path, 5.5, "mean over seeds with 95% interval" if most > 1 else "each point is one run") as axes:
        for style, (label, points) in zip(STYLES, lines.items(), strict=False):
            numbers = sorted(points)
            means = [estimate(points[number]) for number in numbers]
            errors = [mean.half_width or 0.0 for mean in means]
            values = [mean.mean for mean in means]
            axes.errorbar(numbers, values, errors, **style, capsize=3 if any(errors) else 0, label=label or None)  # type: ignore[arg-type]
        numbers = [number for points in lines.values() for number in points]
        if min(numbers) > 0 and max(numbers) >= 10 * min(numbers):
            axes.set_xscale("log")
        axes.set_xlabel(key)
        axes.set_ylabel(_judged_name(sweep))


def plot_ladder(curves: Sequence[ScalingCurve], sweep: Sweep, path: Path) -> None:
    """Plot the loss by compute, the measured sizes and the law through them, to ten times the largest compute."""
    assert sweep.ladder is not None
    with _plot(path, 5.5, "mean over seeds, and the law fitted to it, to ten times the largest compute") as axes:
        for style, curve in zip(STYLES, curves[:MOST_CURVES], strict=False):
            points = np.geomspace(curve.compute[0], BEYOND * curve.compute[-1], 60)
            axes.plot(points, curve.law.loss(points), color=style["color"], linestyle=style["linestyle"])
            axes.plot([], [], "o-", color=style["color"], label=curve.label)
            for size, compute, loss in zip(sweep.ladder.sizes, curve.compute, curve.values.mean(0), strict=True):
                tip = f"{TIP}{curve.label}, {layers(size)}, {compute:.3g} FLOP: {shown(loss)}"
                axes.plot([compute], [loss], "o", color=style["color"], gid=tip)
        axes.set_xscale("log")
        axes.set_xlabel("compute, 6 x parameters x tokens (FLOP)")
        axes.set_ylabel(_name(sweep))


def numeric_keys(sweep: Sweep) -> list[str]:
    """List the keys whose values are three numbers or more."""
    by_key: dict[str, list[Axis]] = defaultdict(list)
    for axis in sweep.all_axes():
        if axis.key == LADDER:
            continue  # it has a plot of its own
        by_key[axis.key].append(axis)
    return [key for key, axes in by_key.items() if all(_is_numeric(axis) for axis in axes)]


def _is_numeric(axis: Axis) -> bool:
    labels = [choice.label for choice in axis.choices]
    return axis.range is not None or (
        len(labels) > 2 and all(isinstance(x, int | float) and not isinstance(x, bool) for x in labels)
    )


def _name(sweep: Sweep) -> str:
    return NAMES.get(sweep.metric, sweep.metric)


def _judged_name(sweep: Sweep) -> str:
    """What a run is judged by."""
    return f"{_name(sweep)} at the last step" if sweep.judged_by == "metric" else sweep.judged_name


@contextmanager
def _plot(path: Path, height: float, title: str) -> Iterator[Axes]:
    """Give the axes of a plot, and save it twice, with a legend beside what was drawn under a label."""
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(title, fontsize=10)
    yield axes
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
    vector = path.with_suffix(".svg")
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):  # text as text, and the same file each time
        figure.savefig(vector, metadata={"Date": None})
    text = vector.read_text(encoding="utf-8")
    vector.write_text(text.replace(f'id="{TIP}', 'data-tip="'), encoding="utf-8")
