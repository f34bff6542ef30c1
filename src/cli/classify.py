"""classify: the label of each text, with the probabilities of all, by a trained classifier."""

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from src.cli.messages import called_as
from src.cli.verb import Positive
from src.coverage import MeasuredTokenizer
from src.errors import InputError
from src.files import check_file, read_lines
from src.predictions import check_table, prediction_row, write_table

if TYPE_CHECKING:
    from src.classifier import Classifier


def classify(
    checkpoint: str,
    text: list[str] | None = None,
    input_: Path | None = None,
    output: Path | None = None,
    batch_size: Positive = 64,
    device: str = "cpu",
) -> None:
    """Print the labels of each text with their probabilities, the likeliest first, by tabs: a line a text, in order.

    A classifier that was trained on pairs of texts takes both on a line, with a tab between them. An empty line has an
    empty line. Texts of more tokens than positions are cut, and counted.

    Args:
        checkpoint: a checkpoint of a classifier
        text: a text; repeat it for several
        input_: a file, also .gz, with a text a line; standard input, if neither is given
        output: a .csv or .jsonl file for a table of texts, labels and probabilities; standard output otherwise
        batch_size: texts at a time
        device: cpu, cuda, cuda:1, mps, ...
    """
    from src.checkpoint import read_checkpoint  # with torch, for which help does not wait
    from src.classifier import classifier_of

    if text and input_:
        raise InputError(f"argument --input: not allowed with argument --text (see {called_as()} classify --help)")
    if output:
        check_table(output)
    classifier = classifier_of(read_checkpoint(checkpoint), checkpoint, device)
    if input_:
        check_file(input_, is_text=True)
    classified = _Classified(classifier, text or read_lines(input_), batch_size)
    if output is None:
        for texts, probabilities in classified:
            print(_line(classifier.label_names, probabilities) if texts else "", flush=True)
    else:
        names = classifier.label_names
        write_table(output, (prediction_row(texts, names, ps) for texts, ps in classified if texts))
        print(f"wrote {output}", file=sys.stderr)
    classified.report()


class _Classified:
    """The texts of some lines with the probabilities of their labels; counts what was cut, empty or lost on the way."""

    def __init__(self, classifier: "Classifier", lines: Iterable[str], batch_size: int) -> None:
        self.classifier, self.lines, self.batch_size = classifier, lines, batch_size
        self.measured = MeasuredTokenizer(classifier.tokenizer, "the texts")
        self.cut = self.empty = 0

    def __iter__(self) -> Iterator[tuple[list[str], list[float]]]:
        """Yield the one or two texts of each line, in order, and the probabilities; both empty for an empty line."""
        lines, number = iter(self.lines), 0
        while batch := list(islice(lines, self.batch_size)):
            texts = [self._texts(line, number + i) for i, line in enumerate(batch, start=1)]
            number += len(batch)
            held = [parts for parts in texts if parts]
            found = iter(self._probabilities(held) if held else ())
            for parts in texts:
                yield parts, next(found) if parts else []

    def _texts(self, line: str, number: int) -> list[str]:
        """Split a line into the texts of a row; none for an empty line."""
        if not line.strip():
            self.empty += 1
            return []
        parts = line.split("\t") if self.classifier.takes_pairs else [line]
        if self.classifier.takes_pairs and (len(parts) != 2 or not all(map(str.strip, parts))):
            raise InputError(
                f"text {number:,}, {line[:40]!r}, is no pair, which this checkpoint was trained on: write both texts "
                "with a tab between them"
            )
        return parts

    def _probabilities(self, texts: list[list[str]]) -> list[list[float]]:
        for column in zip(*texts, strict=True):
            self.measured.encode(column)
        rows, cut = self.classifier.rows(texts)
        self.cut += cut
        return self.classifier.probabilities(rows).tolist()

    def report(self) -> None:
        """Say what was cut, what has no label, and what the tokenizer has lost."""
        counts = ((self.cut, f"were cut to {self.classifier.max_tokens} tokens"), (self.empty, "are empty: no label"))
        notes = [f"{n:,} of the texts {what}" for n, what in counts if n]
        for note in filter(None, (*notes, self.measured.losses())):
            print(f"warning: {note}", file=sys.stderr)


def _line(names: list[str], probabilities: list[float]) -> str:
    best_first = sorted(zip(names, probabilities, strict=True), key=lambda one: -one[1])
    return "\t".join(f"{name}\t{probability:.4f}" for name, probability in best_first)
