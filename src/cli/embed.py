"""embed: a vector for each line of a file, by a trained BERT."""

from pathlib import Path

import numpy as np

from src.atomic import atomic_file
from src.cli.parser import VerbParser, positive
from src.encoder import load_encoder
from src.errors import InputError
from src.files import check_file, read_lines


def parser() -> VerbParser:
    """The options of `embed`."""
    options = VerbParser(prog="python -m src embed", description=__doc__)
    options.add_argument(
        "--checkpoint", required=True, metavar="PATH", help="a checkpoint of a BERT, a Longformer or a retriever"
    )
    options.add_argument("--input", required=True, type=Path, metavar="FILE", help="UTF-8 text, one sentence a line")
    options.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help="a .npy file: (lines, d_model), float32"
    )
    options.add_argument("--batch-size", type=positive, default=64, metavar="N", help="sentences at once (%(default)s)")
    options.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps, ... (%(default)s)")
    return options


def main(arguments: list[str]) -> None:
    """Write the mean of each line's token vectors; lines of more tokens than positions are cut, and counted.

    Raises:
        InputError: a bad option or checkpoint, an input that is no text, or an output that cannot be written.
    """
    options = parser().parse_args(arguments[1:])
    if options.output.suffix != ".npy" or not options.output.parent.is_dir():
        raise InputError(f"--output {options.output} must be a .npy file in a folder that exists")
    check_file(options.input, is_text=True)
    encoder = load_encoder(options.checkpoint, options.device)
    rows, cut = encoder.rows(list(read_lines(options.input)))
    vectors = encoder.means(rows, options.batch_size)
    with atomic_file(options.output) as file:
        np.save(file, vectors.numpy())
    note = f"; {cut:,} were cut to {encoder.max_tokens + 2} tokens" if cut else ""
    print(f"wrote {len(vectors):,} vectors of {vectors.shape[1]} to {options.output}{note}")
