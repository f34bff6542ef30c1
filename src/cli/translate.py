"""translate: one line of source in, one line of translation out."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from tokenizers import Tokenizer

from src.atomic import atomic_file
from src.checkpoint import Trained, load_writer, read_checkpoint
from src.cli.parser import VerbParser, non_negative, positive
from src.decoding import Hypothesis, beam_search, greedy_search, wu_penalty
from src.errors import InputError
from src.files import check_file
from src.hardware import to_device
from src.lines import read_lines
from src.models import Transformer
from src.tokenization import require_token

CHUNK = 10_000  # lines that are sorted by length together


def parser() -> VerbParser:
    """The options of `translate`."""
    options = VerbParser(prog="python -m src translate", description=__doc__)
    options.add_argument("--checkpoint", required=True, metavar="PATH", help="a checkpoint of a Transformer")
    source = options.add_mutually_exclusive_group()
    source.add_argument("--text", action="append", help="a sentence; repeat it for several")
    source.add_argument("--input", metavar="FILE", help="a file, also .gz, with a sentence a line; else standard input")
    options.add_argument("--output", metavar="FILE", help="where to write; standard output otherwise")
    options.add_argument("--beam", type=positive, default=4, metavar="K", help="1 is greedy (%(default)s)")
    options.add_argument(
        "--n-best", type=positive, metavar="N", help="print the N best of each as line number, score and text, by tabs"
    )
    options.add_argument(
        "--length-penalty",
        type=non_negative,
        default=0.6,
        metavar="ALPHA",
        help="of Wu et al. 2016; more is longer (%(default)s)",
    )
    options.add_argument("--max-length", type=positive, metavar="N", help="tokens at most (50 more than the source)")
    options.add_argument(
        "--min-length", type=int, choices=range(1000), default=0, metavar="N", help="tokens at least (%(default)s)"
    )
    options.add_argument("--batch-size", type=positive, default=64, metavar="N", help="sentences (%(default)s)")
    options.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps, ... (%(default)s)")
    return options


class Translator:
    """A trained Transformer with both tokenizers, and how it is to search."""

    def __init__(self, trained: Trained[Transformer], source: Tokenizer, options: argparse.Namespace) -> None:
        self.model, self.options = trained.model, options
        to_device(trained.model, options.device)
        self.source, self.target = source, trained.tokenizer
        end, start = trained.special_tokens["eos_token"], trained.special_tokens["decoder_start_token"]
        self.source_end = require_token(source, end, "end_token")
        self.end = require_token(trained.tokenizer, end, "end_token")
        self.start = require_token(trained.tokenizer, start, "start_token")

    def translate(self, lines: list[str]) -> list[list[Hypothesis]]:
        """The best translations of each line, in order; an empty line has an empty one."""
        sources = [self._ids(i, line) for i, line in enumerate(lines) if line.strip()]
        sources.sort(key=lambda source: len(source[1]))
        size = self.options.batch_size
        found: list[list[Hypothesis]] = [[Hypothesis([], 0.0)] for _ in lines]
        batches = [sources[i : i + size] for i in range(0, len(sources), size)]
        for batch in track(batches, "translate", console=Console(stderr=True), disable=not sys.stderr.isatty()):
            for (i, _), hypotheses in zip(batch, self._search([ids for _, ids in batch]), strict=True):
                found[i] = hypotheses
        return found

    def _ids(self, i: int, line: str) -> tuple[int, list[int]]:
        ids = [*self.source.encode(line, add_special_tokens=False).ids, self.source_end]
        room = self.model.config.max_seq_len
        if len(ids) > room:
            print(f"warning: {line[:40]!r}... is {len(ids)} tokens: its first {room} are translated", file=sys.stderr)
            ids = [*ids[: room - 1], self.source_end]
        return i, ids

    def _search(self, sources: list[list[int]]) -> list[list[Hypothesis]]:
        longest = max(map(len, sources))
        rows = [source + [self.source_end] * (longest - len(source)) for source in sources]
        input_ids = torch.tensor(rows, device=self.options.device)
        lengths = torch.tensor([len(source) for source in sources], device=self.options.device)
        mask = (torch.arange(longest, device=self.options.device) < lengths[:, None]).long()
        options = self.options
        if options.beam == 1 and not options.min_length:
            ids = greedy_search(
                self.model, input_ids, mask, start_id=self.start, end_id=self.end, max_len=options.max_length
            )
            return [[Hypothesis(row, 0.0)] for row in ids]
        return beam_search(
            self.model,
            input_ids,
            mask,
            start_id=self.start,
            end_id=self.end,
            beam=options.beam,
            length_penalty=wu_penalty(options.length_penalty),
            max_len=options.max_length,
            min_len=options.min_length,
            n_best=options.n_best or 1,
        )


def _lines(options: argparse.Namespace) -> Iterable[str]:
    if options.text:
        return options.text
    if options.input is None:
        return read_lines(None)
    check_file(Path(options.input), is_text=True)
    return read_lines(Path(options.input))


def _translations(translator: Translator, lines: Iterable[str]) -> Iterator[str]:
    """The lines to print, in the order of the input."""
    n_best, number, remaining = translator.options.n_best, 0, iter(lines)
    while chunk := list(islice(remaining, CHUNK)):
        for hypotheses in translator.translate(chunk):
            number += 1
            texts = [translator.target.decode(h.ids).replace("\r", " ").replace("\n", " ") for h in hypotheses]
            if n_best is None:
                yield texts[0]
            else:
                yield from (f"{number}\t{h.score:.4f}\t{t}" for h, t in zip(hypotheses, texts, strict=True))


def main(arguments: list[str]) -> None:
    """Print the translation of each line, in order.

    Raises:
        InputError: a bad option or checkpoint, or a file that is missing or not UTF-8.
    """
    options = parser().parse_args(arguments[1:])
    if (options.n_best or 1) > options.beam:
        raise InputError(f"--n-best {options.n_best} is more than --beam {options.beam}: widen the beam")
    checkpoint = read_checkpoint(options.checkpoint)
    trained = load_writer(checkpoint, options.checkpoint, "translate")
    if (options.max_length or 1) < options.min_length:
        raise InputError(f"--max-length {options.max_length} is less than --min-length {options.min_length}")
    source = Tokenizer.from_str(checkpoint["source_tokenizer"])
    lines = _translations(Translator(trained, source, options), _lines(options))
    if options.output is None:
        for line in lines:
            print(line)
        return
    with atomic_file(Path(options.output)) as file:
        file.writelines(f"{line}\n".encode() for line in lines)
    print(f"wrote {options.output}", file=sys.stderr)
