"""embed: a vector for each line of a file, by a trained BERT."""

from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from tokenizers import Tokenizer
from torch import Tensor

from src.checkpoint import read_checkpoint, restore
from src.cli.parser import VerbParser, positive
from src.errors import InputError
from src.files import check_file
from src.models import BERT, BERTEncoder, Longformer, mean_pool
from src.tokenization import bert_ids


def parser() -> VerbParser:
    """The options of `embed`."""
    options = VerbParser(prog="python -m src embed", description=__doc__)
    options.add_argument("--checkpoint", required=True, metavar="PATH", help="a checkpoint of a BERT or Longformer")
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
    checkpoint = read_checkpoint(options.checkpoint)
    kind: type[BERT | Longformer] = Longformer if checkpoint["architecture"] == "longformer" else BERT
    model, tokenizer, _ = restore(checkpoint, options.checkpoint, kind)
    ids = bert_ids(tokenizer)
    lines = options.input.read_text(encoding="utf-8").splitlines()
    rows, cut = encode(tokenizer, lines, ids["cls_token"], ids["sep_token"], model.config.max_seq_len)
    encoder = model.encoder.to(options.device)
    vectors = embed(encoder, rows, ids["pad_token"], options.batch_size, options.device)
    np.save(options.output, vectors.numpy())
    note = f"; {cut:,} were cut to {model.config.max_seq_len} tokens" if cut else ""
    print(f"wrote {len(vectors):,} vectors of {vectors.shape[1]} to {options.output}{note}")


def encode(tokenizer: Tokenizer, lines: list[str], cls: int, sep: int, max_seq_len: int) -> tuple[list[list[int]], int]:
    """Each line as ``[CLS] line [SEP]`` in at most ``max_seq_len`` tokens, and how many lines were cut for that."""
    encodings = tokenizer.encode_batch(lines, add_special_tokens=False)
    room = max_seq_len - 2
    return [[cls, *e.ids[:room], sep] for e in encodings], sum(len(e.ids) > room for e in encodings)


@torch.inference_mode()
def embed(encoder: BERTEncoder, rows: list[list[int]], pad: int, batch_size: int, device: str) -> Tensor:
    """The mean of the token vectors of each row, (rows, d_model), on the CPU; rows of like length go together."""
    vectors = torch.empty(len(rows), encoder.config.d_model)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
    starts = range(0, len(rows), batch_size)
    for start in track(starts, "embed", console=Console(stderr=True), transient=True):
        batch = order[start : start + batch_size]
        width = len(rows[batch[0]])
        input_ids = torch.tensor([rows[i] + [pad] * (width - len(rows[i])) for i in batch], device=device)
        lengths = torch.tensor([len(rows[i]) for i in batch], device=device)
        attention_mask = (torch.arange(width, device=device) < lengths[:, None]).long()
        vectors[batch] = mean_pool(encoder(input_ids, attention_mask=attention_mask), attention_mask).float().cpu()
    return vectors
