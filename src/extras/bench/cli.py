"""bench: how fast a configuration trains, or decodes, beside the machine's limit and beside other programs."""

from dataclasses import dataclass
from pathlib import Path

from src.cli.messages import quieten
from src.cli.verb import Positive


@dataclass(frozen=True)
class Options:
    """What is measured, and how long.

    Args:
        against: transformers, or a shell script that prints NUMBER tokens/s (sentences/s with --decode); in turns
        decode: measure generation, or beam search, instead of training
        rounds: in turns
        steps: optimizer steps a round (20); batches, with --decode (5)
        warmup: steps before each round
    """

    against: str | None = None
    decode: bool = False
    rounds: Positive = 5
    steps: Positive | None = None
    warmup: Positive = 5


def bench(*fit: str, options: Options, output: Path | None = None) -> None:
    """Measure how fast a configuration trains, or decodes, beside the machine's limit and other programs.

    Any option of fit may follow.

    Args:
        output: the folder to write bench.json and bench.md to
    """
    # with Lightning and torch, for which its help does not wait
    from src.extras.bench.benchmark import check_output, show, write
    from src.extras.bench.run import measure

    quieten()
    if output is not None:
        check_output(output)
    record = measure(*fit, options=options)
    show(record)
    if output is not None:
        write(record, output)
