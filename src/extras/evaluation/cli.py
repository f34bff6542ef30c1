"""evaluate: score a checkpoint on a standard benchmark."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.markup import escape

from src.cli.messages import called_as, values_of
from src.cli.verb import call
from src.errors import InputError
from src.extras.evaluation.suites import SUITES, find_suite

if TYPE_CHECKING:  # else with torch, for which help does not wait
    from src.extras.evaluation.results import Evaluation, Score

HELP = ("-h", "--help")


class Asked(NamedTuple):
    """What every suite is asked with, and the options of the suite itself."""

    checkpoint: str
    suite: str
    output: Path | None
    options: list[str]


def asked(checkpoint: str, suite: str, output: Path | None = None, *rest: str) -> Asked:
    """Read the options of every suite.

    Args:
        checkpoint: a checkpoint
        suite: a suite, or a test set of sacrebleu by its name
        output: the folder for the results (beside the checkpoint: best.evaluation/SUITE)
    """
    return Asked(checkpoint, suite, output, list(rest))


def evaluate(arguments: list[str]) -> None:
    """Run a suite on a checkpoint; an evaluation that was interrupted goes on."""
    program, suites = f"{called_as()} evaluate", values_of(("--suite",), arguments)
    if set(HELP) & set(arguments):
        if suites:
            call(f"{program} --checkpoint PATH --suite {suites[-1]}", find_suite(suites[-1])[0], ["evaluate", "--help"])
        width = max(map(len, SUITES))
        lines = "\n".join(f"  {name:<{width}}  {what}" for name, (_, what) in SUITES.items())
        print(f"usage: {program} --checkpoint PATH --suite SUITE [--output FOLDER] [options of the suite]\n\n{lines}\n")
        print("Scores go to FOLDER, by default beside the checkpoint, and to the TensorBoard of its run.")
        print(f"Options of a suite: {program} --suite SUITE --help")
        return
    if not suites:
        raise InputError(f"--suite is required: one of {', '.join(SUITES)} (see {program} --help)")
    what = call(program, asked, arguments)
    evaluation = plan(what)
    from src.extras.evaluation.results import folder_of, run_of

    path = Path(what.checkpoint)
    folder = what.output or folder_of(path, what.suite)
    scores = run(what, evaluation, folder)
    _show(scores, evaluation.notes)
    if (run_folder := run_of(path)) and evaluation.step is not None:
        from torch.utils.tensorboard import SummaryWriter

        from src.extras.evaluation.results import log_scores

        with SummaryWriter(str(run_folder), filename_suffix=".evaluation") as writer:
            log_scores(writer, what.suite, scores, evaluation.step)
    print(f"wrote {folder / 'results.json'} and results.md")


def plan(what: Asked) -> "Evaluation":
    """Find out what a suite does with a checkpoint; what cannot be is refused here."""
    function, implied = find_suite(what.suite)
    program = f"{called_as()} evaluate --suite {what.suite}"
    return call(program, function, ["evaluate", "--checkpoint", what.checkpoint, *implied, *what.options])


def run(what: Asked, evaluation: "Evaluation", folder: Path) -> "list[Score]":
    """Compute the scores and write them into a folder."""
    from src.extras.evaluation.results import run_parts, write_results

    path = Path(what.checkpoint)
    scored = run_parts(evaluation, path, folder)
    scores = evaluation.summarize(scored)
    write_results(folder, what.suite, path, evaluation, scored, scores)
    return scores


def _show(scores: "list[Score]", notes: Iterable[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from src.extras.evaluation.results import cells

    table = Table("task", "metric", "value", "95% interval", "", box=None)
    for score in scores:
        table.add_row(*map(escape, cells(score)))  # brackets are no markup
    console = Console(width=140)
    console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
