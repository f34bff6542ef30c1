"""translate: one line of source in, one line of translation out."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from tokenizers import Tokenizer

from src.atomic import atomic_file
from src.checkpoint import Trained, load_writer, read_checkpoint
from src.cli.messages import called_as
from src.cli.verb import NonNegative, NonNegativeFloat, Positive
from src.decoding import Hypothesis, beam_search, greedy_search, wu_penalty
from src.errors import InputError
from src.files import check_file, read_lines
from src.hardware import to_device
from src.models import Transformer
from src.tokenization import require_token

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
    if text and input_:
        raise InputError(f"argument --input: not allowed with argument --text (see {called_as()} translate --help)")
    content = read_checkpoint(checkpoint)
    trained = load_writer(content, checkpoint, "translate")
    source = Tokenizer.from_str(content["source_tokenizer"])
    if input_:
        check_file(input_, is_text=True)
    lines = _printed(Translator(trained, source, search), text or read_lines(input_))
    if output is None:
        for line in lines:
            print(line)
        return
    with atomic_file(output) as file:
        file.writelines(f"{line}\n".encode() for line in lines)
    print(f"wrote {output}", file=sys.stderr)


class Translator:
    """A trained Transformer with both tokenizers, and how it is to search."""

    def __init__(self, trained: Trained[Transformer], source: Tokenizer, options: SearchOptions) -> None:
        self.model, self.options = trained.model, options
        to_device(trained.model, options.device)
        self.source, self.target = source, trained.tokenizer
        end, start = trained.special_tokens["eos_token"], trained.special_tokens["decoder_start_token"]
        self.source_end = require_token(source, end, "end_token")
        self.end = require_token(trained.tokenizer, end, "end_token")
        self.start = require_token(trained.tokenizer, start, "start_token")

    def translate(self, lines: list[str]) -> list[list[Hypothesis]]:
        """Search for the best translations of each line, in order; an empty line has an empty one."""
        sources = [(i, self._cut(line)) for i, line in enumerate(lines) if line.strip()]
        sources.sort(key=lambda source: len(source[1]))
        size = self.options.batch_size
        found: list[list[Hypothesis]] = [[Hypothesis([], 0.0)] for _ in lines]
        batches = [sources[i : i + size] for i in range(0, len(sources), size)]
        is_shown = len(batches) > 1 and sys.stderr.isatty()
        for batch in track(batches, "translate", console=Console(stderr=True), disable=not is_shown):
            for (i, _), hypotheses in zip(batch, self._search([ids for _, ids in batch]), strict=True):
                found[i] = hypotheses
        return found

    def encode(self, line: str) -> list[int]:
        """Make the tokens of a line, the end token the last of them."""
        return [*self.source.encode(line, add_special_tokens=False).ids, self.source_end]

    def _cut(self, line: str) -> list[int]:
        ids, room = self.encode(line), self.model.config.max_seq_len
        if len(ids) > room:
            print(f"warning: {line[:40]!r}... is {len(ids)} tokens: its first {room} are translated", file=sys.stderr)
            ids = [*ids[: room - 1], self.source_end]
        return ids

    def _search(self, sources: list[list[int]]) -> list[list[Hypothesis]]:
        longest, options = max(map(len, sources)), self.options
        rows = [ids + [self.source_end] * (longest - len(ids)) for ids in sources]
        masks = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in sources]
        input_ids, mask = (torch.tensor(content, device=options.device) for content in (rows, masks))
        limits: dict[str, Any] = {"start_id": self.start, "end_id": self.end, "max_len": options.max_length}
        if options.beam == 1 and not options.min_length:
            return [[Hypothesis(row, 0.0)] for row in greedy_search(self.model, input_ids, mask, **limits)]
        return beam_search(
            self.model,
            input_ids,
            mask,
            beam=options.beam,
            length_penalty=wu_penalty(options.length_penalty),
            min_len=options.min_length,
            n_best=options.n_best or 1,
            **limits,
        )


def _printed(translator: Translator, lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines to print, in the order of the input."""
    n_best, number, remaining = translator.options.n_best, 0, iter(lines)
    while chunk := list(islice(remaining, CHUNK)):
        for hypotheses in translator.translate(chunk):
            number += 1
            texts = [translator.target.decode(h.ids).replace("\r", " ").replace("\n", " ") for h in hypotheses]
            if n_best is None:
                yield texts[0]
            else:
                yield from (f"{number}\t{h.score:.4f}\t{t}" for h, t in zip(hypotheses, texts, strict=True))
