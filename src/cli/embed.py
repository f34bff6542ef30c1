"""embed: a vector for each line of a file, by a trained BERT."""

from pathlib import Path

import numpy as np

from src.atomic import atomic_file
from src.cli.verb import Positive, check_output
from src.files import check_file, counted, read_lines


def embed(checkpoint: str, input_: Path, output: Path, batch_size: Positive = 64, device: str = "cpu") -> None:
    """Write a vector for each line of a file: the mean of its tokens', or what an imported encoder was trained for.

    Lines of more tokens than positions are cut, and counted.

    Args:
        checkpoint: a checkpoint of a BERT, a Longformer or a retriever
        input_: UTF-8 text, one sentence a line
        output: a .npy file: (lines, d_model), float32
        batch_size: sentences at once
        device: cpu, cuda, cuda:1, mps, ...
    """
    from src.encoder import load_encoder  # with torch, for which help does not wait

    check_output(output, ".npy")
    check_file(input_, is_text=True)
    encoder = load_encoder(checkpoint, device)
    rows, cut = encoder.rows(list(read_lines(input_)))
    vectors = encoder.encode(rows, batch_size)
    with atomic_file(output) as file:
        np.save(file, vectors.numpy())
    note = f"; {cut:,} were cut to {encoder.max_tokens + 2} tokens" if cut else ""
    print(f"wrote {counted(len(vectors), 'vectors')} of {vectors.shape[1]} to {output}{note}")
