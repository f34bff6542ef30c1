"""compare: which of two or more systems translates better, and whether that could be chance."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from src.cli.parser import VerbParser, fraction, positive
from src.errors import InputError
from src.files import check_file, read_lines


def parser() -> VerbParser:
    """The options of `compare`."""
    options = VerbParser(prog="python -m src compare", description=__doc__)
    options.add_argument(
        "--system",
        action="append",
        required=True,
        metavar="FILE",
        help="translations, one a line; the first is the baseline",
    )
    options.add_argument(
        "--reference", action="append", required=True, metavar="FILE", help="what people wrote; repeat it for several"
    )
    options.add_argument("--samples", type=positive, default=1000, metavar="N", help="bootstrap samples (%(default)s)")
    options.add_argument(
        "--significance",
        type=fraction,
        default=0.05,
        metavar="P",
        help="p-value that counts as no chance (%(default)s)",
    )
    return options


def read_aligned(paths: list[str]) -> list[list[str]]:
    """The lines of each file.

    Raises:
        InputError: a file is missing or not UTF-8, or one has another number of lines than the first.
    """
    for path in paths:
        check_file(Path(path), is_text=True)
    texts = [list(read_lines(Path(path))) for path in paths]
    for path, lines in zip(paths, texts, strict=True):
        if len(lines) != len(texts[0]):
            raise InputError(f"{path} has {len(lines):,} lines and {paths[0]} {len(texts[0]):,}: they must be aligned")
    return texts


def main(arguments: list[str]) -> None:
    """Print BLEU and chrF of each system with p-values by paired bootstrap (Koehn 2004), and a verdict.

    Raises:
        InputError: a bad option, or files that cannot be read or compared.
    """
    from sacrebleu.metrics import BLEU, CHRF
    from sacrebleu.significance import PairedTest

    options = parser().parse_args(arguments[1:])
    if len(options.system) < 2:
        raise InputError("one --system cannot be compared: give two or more")
    if len(set(options.system)) < len(options.system):
        raise InputError("a --system is named twice: give different files")
    texts = read_aligned([*options.system, *options.reference])
    systems, references = texts[: len(options.system)], texts[len(options.system) :]
    test = PairedTest(
        list(zip(options.system, systems, strict=True)),
        {"BLEU": BLEU(), "chrF": CHRF()},
        references=references,
        test_type="bs",
        n_samples=options.samples,
    )
    signatures, scores = test()
    console = Console()
    table = Table("system", *signatures, box=None)
    for i, name in enumerate(options.system):
        table.add_row(name, *(_cell(scores[metric][i]) for metric in signatures))
    console.print(table)
    for i, name in enumerate(options.system[1:], 1):
        for metric in signatures:
            verdict = _verdict(scores[metric][0], scores[metric][i], options.significance)
            console.print(f"{metric}: {name} {verdict} {options.system[0]}", highlight=False, soft_wrap=True)
    for metric, signature in signatures.items():
        console.print(f"{metric}: {signature}", highlight=False, soft_wrap=True)


def _cell(result: Any) -> str:
    """A score with the bounds of its 95% confidence interval."""
    return f"{result.score:.2f} ± {result.ci:.2f}"


def _verdict(baseline: Any, result: Any, significance: float) -> str:
    p = f"p = {result.p_value:.4f}"
    if result.p_value > significance:
        return f"is not significantly different ({p}) from"
    return f"is significantly {'better' if result.score > baseline.score else 'worse'} ({p}) than"
