"""The report of a sweep: verdicts, tables as Markdown, HTML and CSV, plots, and the best configuration."""

import csv
import platform
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
import yaml

from src.extras.sweep.configuration import with_settings
from src.extras.sweep.definition import Sweep
from src.extras.sweep.ladder import layers
from src.extras.sweep.page import write_page
from src.extras.sweep.plots import numeric_keys, plot_curves, plot_final, plot_ladder, plot_number
from src.extras.sweep.queue import current_trials, is_lost
from src.extras.sweep.results import CellResult, Estimate, RunResult, cells_of, cost_of_target, odd_ones, runs_of, shown
from src.extras.sweep.scaling_law import ladder_sentences, scaling_curves
from src.extras.sweep.study import sweep_of_study
from src.extras.sweep.verdicts import verdicts

# what a seed makes equal in all cells -> how it is called
EQUAL = {
    "initial_weights": "initial weight matrices",
    "batches": "training batches and their order",
    "first_loss": "loss of the first batch",
}
# what all runs should have in common
COMMON = {"steps": "optimizer steps", "precision": "precision", "threads": "threads", "machine": "machine"}
COSTS = {"seconds": "seconds", "memory_mib": "MiB", "n_parameters": "parameters"}
TARGET_COSTS = ("steps", "tokens", "seconds")  # until a target is reached
# of a run's record, the columns of runs.csv
RECORDED = (
    "seconds",
    "cpu_seconds",
    "memory_mib",
    "n_parameters",
    "steps",
    "tokens",
    *EQUAL,
    "precision",
    "threads",
    "machine",
)


def write_report(study: optuna.Study, folder: Path) -> Path:
    """Write the report of a study into its folder, as ``report.md`` and ``report.html``, and what belongs to it.

    That is ``report.csv``, ``runs.csv``, ``best.yaml`` and the plots. Of a ladder it is about the largest size, and has
    a section on all of them.

    Returns:
        The path of ``report.md``.
    """
    sweep = sweep_of_study(study)
    runs = runs_of(study, sweep)
    judged = [run for run in runs if not run.is_tuning and _is_largest(run, sweep)]
    cells = cells_of(judged, sweep.judged_mode)
    _write_csv([_run_row(run, sweep) for run in runs], folder / "runs.csv")
    _write_csv([_cell_row(cell, cells[0]) for cell in cells], folder / "report.csv")
    parts = [f"# {study.study_name}", _summary(study, sweep, runs), study.user_attrs.get("power", "")]
    if len({run.label for run in judged}) > 1:
        parts.append(_verdicts(judged, sweep))
    if cells:
        plot_final(cells, sweep, folder / "final.png")
        plot_curves(cells, sweep, folder / "curves.png")
        config = with_settings(study.user_attrs["config"], study.user_attrs["decided"])
        best = sweep.config_of(config, cells[0].parameters, sweep.seeds[0])
        (folder / "best.yaml").write_text(yaml.safe_dump(best, sort_keys=False), encoding="utf-8")
        parts += [_cells_table(cells, sweep), "![the metric at the end](final.png)", "![learning curves](curves.png)"]
        parts.append(f"The best of them, {cells[0].label}, is a configuration to train with: `best.yaml`.")
    if sweep.ladder is not None:
        parts.append(_ladder(runs, sweep, folder))
    is_tuned = bool(sweep.tuning_seeds)
    tried = [run for run in runs if run.is_tuning == is_tuned and run.value is not None and _is_largest(run, sweep)]
    for key in numeric_keys(sweep) if tried else []:
        name = f"{key.rpartition('.')[2]}.png"
        plot_number(tried, sweep, key, folder / name)
        parts.append(f"![{key}]({name})")
    if sweep.tuning_seeds and tried:
        rows = [[cell.label, shown(cell.estimate.mean)] for cell in cells_of(tried, sweep.judged_mode)]
        parts.append("## Tuning\n\n" + _table(["", f"{sweep.judged_name}, seed {_list(sweep.tuning_seeds)}"], rows))
    parts += [_held_equal(sweep, judged, study), _failures(runs)]
    path = folder / "report.md"
    text = "\n\n".join(part for part in parts if part) + "\n"
    path.write_text(text, encoding="utf-8")
    write_page(text, folder)
    return path


def _is_largest(run: RunResult, sweep: Sweep) -> bool:
    return sweep.ladder is None or sweep.size(run.parameters) == sweep.ladder.sizes[-1]


def _verdicts(judged: Sequence[RunResult], sweep: Sweep) -> str:
    note = (
        "Paired by seed; intervals are 95% of each comparison by itself, p-values are corrected for the number of "
        "comparisons (Holm), and a verdict has one below 0.05. How many more seeds would tell is for a power of 80%."
    )
    return "## Verdicts\n\n" + "\n".join(f"- {line}" for line in verdicts(judged, sweep)) + "\n\n" + note


def _ladder(runs: Sequence[RunResult], sweep: Sweep, folder: Path) -> str:
    assert sweep.ladder is not None
    curves, without = scaling_curves([run for run in runs if not run.is_tuning], sweep)
    parts = [f"**{label}**: no seed is complete at every size." for label in without]
    if not curves:
        return "## Ladder\n\n" + "\n".join(f"- {part}" for part in parts)
    plot_ladder(curves, sweep, folder / "ladder.png")
    sizes = [layers(size) for size in sweep.ladder.sizes]
    rows = []
    for curve in curves:
        law = curve.law
        means = [f"{mean:.4f}" for mean in curve.values.mean(0)]
        numbers = [f"{float(law.exponent):.3f}", f"{float(law.floor):.3f}", f"{curve.compute[-1]:.3g}"]
        rows.append([curve.label, *means, *numbers, str(len(curve.seeds))])
    header = ["", *sizes, "exponent", "floor", "FLOP of the largest", "seeds"]
    sentences = "\n".join(f"- {line}" for line in [*ladder_sentences(curves), *parts])
    note = (
        "The loss is fitted as floor + factor x compute^-exponent, with a floor from four sizes on; compute is 6 x "
        "parameters x tokens. Intervals are 95%, by Student's t and the standard error of a bootstrap over seeds."
    )
    plot = "![loss by compute](ladder.png)"
    return "\n\n".join(["## Ladder", sentences, _table(header, rows), plot, note])


def _summary(study: optuna.Study, sweep: Sweep, runs: Sequence[RunResult]) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in Counter(run.state for run in runs).most_common())
    trials = study.get_trials(deepcopy=False)
    left = sum(not trial.state.is_finished() for trial in current_trials(trials).values())
    lost = sum(map(is_lost, trials))
    text = (
        f"{len(runs)} runs of `{' '.join(sweep.base)}`: {counts}. Judged by `{sweep.judged_name}`"
        f"{' at the last step' if sweep.judged_by == 'metric' else ', interpolated between evaluations'}, the "
        f"{'lower' if sweep.judged_mode == 'min' else 'higher'} the better; seeds {_list(sweep.seeds)}."
    )
    if sweep.tuning_seeds:
        text += (
            f" What each choice has of parameters of its own was tuned with seed {_list(sweep.tuning_seeds)}, and "
            "only its best cell was run with the others: none is judged by the seed that chose it."
        )
    if left:
        text += f" **{left} runs are not finished.**"
    if lost:
        text += f" {lost} runs were interrupted and done again."
    return text


def _cells_table(cells: Sequence[CellResult], sweep: Sweep) -> str:
    costs = () if sweep.target is None else TARGET_COSTS
    to_target = [f"{cost} to {sweep.target:g}" for cost in costs]
    header = ["", "mean", "std", "95% interval", "to the best, paired", "seeds", *to_target, *COSTS.values()]
    marks = [" \\*" if _is_at_edge(cell, sweep) else "" for cell in cells]
    rows = []
    for cell, mark in zip(cells, marks, strict=True):
        mean = cell.estimate
        rows.append(
            [
                cell.label + mark,
                shown(mean.mean),
                "" if mean.deviation is None else shown(mean.deviation),
                _interval(mean),
                _difference(cell.difference(cells[0]) if cell is not cells[0] else None),
                f"{len(cell.runs)}" + (f" of {cell.n_ended}" if cell.n_ended != len(cell.runs) else ""),
                *(_cost(cell, sweep, cost) for cost in costs),
                *(_number(cell.mean_of(name), form) for name, form in zip(COSTS, (".1f", ".0f", ",.0f"), strict=True)),
            ]
        )
    note = (
        "`std` is over seeds (n - 1); the interval of the mean is Student's t. `to the best` is the mean difference to "
        "the first row with its interval, seed by seed, as one seed has the same data in all. Time is from the first "
        "step to the last validation, memory the most of the whole process."
    )
    if costs:
        note += (
            " What the target takes is interpolated between evaluations and averaged over the runs that reach it, "
            "which are counted where not all do; its seconds are of training alone."
        )
    if any(marks):
        note += " \\* the best was at the edge of what was tried."
    return _table(header, rows) + "\n\n" + note


def _cost(cell: CellResult, sweep: Sweep, cost: str) -> str:
    """Average a cost of the target over the runs that reach it, and count those if not all do."""
    reached = [found for run in cell.runs if (found := cost_of_target(run.record, sweep, cost)) is not None]
    count = "" if len(reached) == cell.n_ended else f" ({len(reached)} of {cell.n_ended})"
    return f"{statistics.fmean(reached):,.0f}{count}" if reached else f"not reached{count}"


def _is_at_edge(cell: CellResult, sweep: Sweep) -> bool:
    """Whether tuning found a cell at an end of what it had to choose from."""
    for axis, choice in sweep.chosen(cell.parameters) if sweep.tuning_seeds else ():
        numbers = [other.label for other in axis.choices if isinstance(other.label, int | float)]
        if axis not in sweep.axes and len(numbers) > 1 and choice.label in (min(numbers), max(numbers)):
            return True
    return False


def _held_equal(sweep: Sweep, runs: Sequence[RunResult], study: optuna.Study) -> str:
    complete = [run for run in runs if run.state == "complete"]
    if not complete:
        return ""
    rows = []
    for what, name in COMMON.items():
        found = sorted({str(run.record.get(what)) for run in complete})
        rows.append([name, found[0] if len(found) == 1 else f"**not equal**: {', '.join(found)}"])
    for what, name in EQUAL.items():
        odd = odd_ones(complete, what)
        n_cells = len({run.label for run in complete})
        equal = f"equal in all {n_cells} cells, seed by seed"
        if odd:
            equal = f"equal in {n_cells - len(odd)} of {n_cells} cells, seed by seed; not in {'; '.join(odd)}"
        if len(odd) > n_cells // 2:
            equal = "another in most cells: what is varied changes it"
        rows.append([name, equal])
    rows += [[f"`{key}`", f"`{value}`"] for key, value in {**study.user_attrs["decided"], **sweep.set}.items()]
    rows.append(
        ["versions", f"Python {platform.python_version()}, torch {version('torch')}, lightning {version('lightning')}"]
    )
    return "## Held equal\n\nAs recorded in the runs, not as configured.\n\n" + _table(["", ""], rows)


def _failures(runs: Sequence[RunResult]) -> str:
    rows = [
        [str(run.number), run.label, str(run.seed), run.state, str(run.record.get("reason", "")).replace("|", "\\|")]
        for run in runs
        if run.state != "complete"
    ]
    return "## Not completed\n\n" + _table(["run", "", "seed", "state", "reason"], rows) if rows else ""


def _cell_row(cell: CellResult, best: CellResult) -> dict[str, Any]:
    mean, to_best = cell.estimate, cell.difference(best)
    return {
        **cell.parameters,
        "mean": mean.mean,
        "std": mean.deviation,
        "half_width_95": mean.half_width,
        "difference_to_best": to_best.mean if to_best else None,
        "difference_half_width_95": to_best.half_width if to_best else None,
        "seeds": len(cell.runs),
        "ended": cell.n_ended,
        **{name: cell.mean_of(name) for name in COSTS},
    }


def _run_row(run: RunResult, sweep: Sweep) -> dict[str, Any]:
    return {
        "run": run.number,
        **run.parameters,
        "seed": run.seed,
        "tuning": run.is_tuning,
        "state": run.state,
        sweep.judged_name: run.value,
        **{name: run.record.get(name) for name in (*RECORDED, "folder", "reason")},
        **run.record.get("metrics", {}),
    }


def _write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _table(header: list[str], rows: Iterable[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows])


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _interval(mean: Estimate) -> str:
    if mean.half_width is None:
        return ""
    return f"{shown(mean.mean - mean.half_width)} to {shown(mean.mean + mean.half_width)}"


def _difference(difference: Estimate | None) -> str:
    if difference is None:
        return ""
    return f"{difference.mean:+.4f}" + (f" ± {difference.half_width:.4f}" if difference.half_width is not None else "")


def _list(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
