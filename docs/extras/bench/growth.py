"""Cost as work grows: the time of a step against model size, sequence length, batch and data workers, in one plot.

    python -m docs.extras.bench.growth --output docs/growth

writes growth.json and growth.png there. Any option of bench and fit may follow.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from src.cli.messages import quieten
from src.cli.verb import call
from src.extras.bench.run import measure

Settings = dict[str, Any]


class Axis(NamedTuple):
    """One thing that grows, and all else as configured.

    Args:
        label: of the plot's axis; ``None`` values of x are the parameters of the network.
        points: what is set, by the value on the axis.
    """

    label: str
    points: list[tuple[float | None, Settings]]


SHAPES = ((2, 128, 4), (4, 192, 6), (6, 256, 8), (6, 384, 6), (8, 512, 8))
AXES = {
    "model": Axis(
        "parameters",
        [
            (None, {"model.config.n_layers": n, "model.config.d_model": d, "model.config.n_heads": h})
            for n, d, h in SHAPES
        ],
    ),
    "sequence": Axis(
        "tokens a sequence",
        [(n, {"model.config.max_seq_len": n, "data.seq_len": n}) for n in (64, 128, 256, 512, 1024)],
    ),
    "batch": Axis("sequences a batch", [(n, {"data.batch_size": n}) for n in (1, 2, 4, 8, 16, 32)]),
    "workers": Axis("data workers", [(n, {"data.num_workers": n}) for n in (0, 1, 2, 4)]),
}


def measure_point(x: float | None, settings: Settings, arguments: list[str]) -> Settings:
    """Milliseconds a step in each round, and of the profiled steps what Lightning and logging take."""
    options = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    record = call("docs.growth", measure, ["bench", *arguments, *options])
    steps = record.steps
    assert steps is not None
    tokens = steps.tokens / steps.steps
    return {
        "x": record.parameters if x is None else x,
        "settings": settings,
        "milliseconds": [1000 * tokens / rate for rate in record.own],
        "overhead": 1000 * (steps.parts["lightning"] + steps.parts["logging"]) / steps.steps,
        "data": 1000 * steps.parts["data"] / steps.steps,
    }


def plot(found: dict[str, list[Settings]], path: Path) -> None:
    """A panel an axis: medians with the spread of the rounds, Lightning's and logging's share, and data's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(found), 4), layout="constrained")
    for panel, (name, points) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        x = [point["x"] for point in points]
        middle = [median(point["milliseconds"]) for point in points]
        below = [m - min(point["milliseconds"]) for m, point in zip(middle, points, strict=True)]
        above = [max(point["milliseconds"]) - m for m, point in zip(middle, points, strict=True)]
        panel.errorbar(x, middle, [below, above], marker="o", capsize=3, label="a step")
        panel.plot(x, [point["overhead"] for point in points], marker=".", label="Lightning and logging in it")
        panel.plot(x, [point["data"] for point in points], marker=".", label="data in it")
        if name != "workers":
            panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel(AXES[name].label)
        panel.set_ylabel("milliseconds")
    panel.legend()
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> None:
    """Measure every point, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/gpt.yaml")
    parser.add_argument("--output", type=Path, required=True)
    options, rest = parser.parse_known_args(arguments)
    quieten()
    common = ["--config", options.config, "--steps", "6", "--warmup", "2", "--rounds", "3", *rest]
    found: dict[str, list[Settings]] = {}
    for name, axis in AXES.items():
        found[name] = [measure_point(x, settings, common) for x, settings in axis.points]
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "growth.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    plot(found, options.output / "growth.png")
    print(f"wrote {options.output}/growth.json and growth.png")


if __name__ == "__main__":
    main()
