"""translate: one line of source in, one line of translation out."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from src.atomic import atomic_file
from src.cli.messages import called_as
from src.cli.verb import NonNegative, NonNegativeFloat, Positive
from src.errors import InputError
from src.files import check_file, read_lines

if TYPE_CHECKING:
    from src.decoding import Translator

CHUNK = 10_000  # lines that are sorted by length together


@dataclass(frozen=True)
class SearchOptions:
    """How translations are searched for.

    Args:
        beam: hypotheses at a time; 1 is greedy
        n_best: print the N best of each line as its number, score and text, by tabs
        length_penalty: of Wu et al. 2016; more is longer
        max_length: tokens at most (50 more than the source)
        min_length: tokens at least
        batch_size: sentences at a time
        device: cpu, cuda, cuda:1, mps, ...
    """

    beam: Positive = 4
    n_best: Positive | None = None
    length_penalty: NonNegativeFloat = 0.6
    max_length: Positive | None = None
    min_length: NonNegative = 0
    batch_size: Positive = 64
    device: str = "cpu"

    def __post_init__(self) -> None:
        if (self.n_best or 1) > self.beam:
            raise InputError(f"--n-best {self.n_best} is more than --beam {self.beam}: widen the beam")
        if (self.max_length or self.min_length) < self.min_length:
            raise InputError(f"--max-length {self.max_length} is less than --min-length {self.min_length}")


def translate(
    checkpoint: str,
    search: SearchOptions,
    text: list[str] | None = None,
    input_: Path | None = None,
    output: Path | None = None,
) -> None:
    """Print the translation of each line by a trained Transformer, in order.

    Args:
        checkpoint: a checkpoint of a Transformer
        text: a sentence; repeat it for several
        input_: a file, also .gz, with a sentence a line; standard input, if neither is given
        output: where to write; standard output otherwise
    """
    # with torch, for which help does not wait
    from tokenizers import Tokenizer

    from src.checkpoint import load_writer, read_checkpoint
    from src.decoding import Translator

    if text and input_:
        raise InputError(f"argument --input: not allowed with argument --text (see {called_as()} translate --help)")
    content = read_checkpoint(checkpoint)
    trained = load_writer(content, checkpoint, "translate")
    source = Tokenizer.from_str(content["source_tokenizer"])
    if input_:
        check_file(input_, is_text=True)
    lines = _printed(Translator(*trained, source, **vars(search)), text or read_lines(input_), search.n_best)
    if output is None:
        for line in lines:
            print(line)
        return
    with atomic_file(output) as file:
        file.writelines(f"{line}\n".encode() for line in lines)
    print(f"wrote {output}", file=sys.stderr)


def _printed(translator: "Translator", lines: Iterable[str], n_best: int | None) -> Iterator[str]:
    """Yield the lines to print, in the order of the input."""
    number, remaining = 0, iter(lines)
    while chunk := list(islice(remaining, CHUNK)):
        for hypotheses in translator.translate(chunk):
            number += 1
            texts = [translator.target.decode(h.ids).replace("\r", " ").replace("\n", " ") for h in hypotheses]
            if n_best is None:
                yield texts[0]
            else:
                yield from (f"{number}\t{h.score:.4f}\t{t}" for h, t in zip(hypotheses, texts, strict=True))
