"""compare: which of two or more systems translates better, and whether that could be chance."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from src.cli.verb import Fraction, Positive
from src.errors import InputError
from src.files import check_file, read_lines


def compare(system: list[str], reference: list[str], samples: Positive = 1000, significance: Fraction = 0.05) -> None:
    """Print BLEU and chrF of each system with p-values by paired bootstrap (Koehn 2004), and a verdict.

    Args:
        system: a file of translations, one a line; the first is the baseline
        reference: a file of what people wrote; repeat it for several
        samples: bootstrap samples
        significance: the highest p-value of a significant difference
    """
    from sacrebleu.metrics import BLEU, CHRF

    if len(system) < 2:
        raise InputError("one --system cannot be compared: give two or more")
    if len(set(system)) < len(system):
        raise InputError("a --system is named twice: give different files")
    texts = _read_aligned([*system, *reference])
    systems: list[tuple[str, Sequence[str]]] = list(zip(system, texts, strict=False))
    references = texts[len(system) :]
    signatures, scores = paired_bootstrap(systems, {"BLEU": BLEU(), "chrF": CHRF()}, references, samples)
    console = Console()
    table = Table("system", *signatures, box=None)
    for i, name in enumerate(system):
        results: list[Any] = [scores[metric][i] for metric in signatures]
        table.add_row(name, *(f"{result.score:.2f} ± {result.ci:.2f}" for result in results))  # 95% confidence
    console.print(table)
    for i, name in enumerate(system[1:], 1):
        for metric in signatures:
            found = verdict(scores[metric][0], scores[metric][i], significance)
            console.print(f"{metric}: {name} {found} {system[0]}", highlight=False, soft_wrap=True)
    for metric, signature in signatures.items():
        console.print(f"{metric}: {signature}", highlight=False, soft_wrap=True)


def paired_bootstrap(
    systems: list[tuple[str, Sequence[str]]], metrics: dict[str, Any], references: list[list[str]], samples: int
) -> tuple[Any, Any]:
    """Compare translations with those of the first system: sacrebleu's signatures and results, by metric."""
    from sacrebleu.significance import PairedTest

    return PairedTest(systems, metrics, references=references, test_type="bs", n_samples=samples)()


def _read_aligned(paths: list[str]) -> list[list[str]]:
    """Read the lines of each file, as many of one as of another."""
    for path in paths:
        check_file(Path(path), is_text=True)
    texts = [list(read_lines(Path(path))) for path in paths]
    for path, lines in zip(paths, texts, strict=True):
        if len(lines) != len(texts[0]):
            raise InputError(f"{path} has {len(lines):,} lines and {paths[0]} {len(texts[0]):,}: they must be aligned")
    return texts


def verdict(baseline: Any, result: Any, significance: float = 0.05) -> str:
    """Say whether a result is better than the baseline's, and whether that could be chance."""
    p = f"p = {result.p_value:.4f}"
    if result.p_value > significance:
        return f"is not significantly different ({p}) from"
    return f"is significantly {'better' if result.score > baseline.score else 'worse'} ({p}) than"
