"""Seconds and memory until training has its first batch, by the rows that were prepared.

    python -m tests.data.measure_startup --rows 10000 100000 1000000

Rows are short, so that there are many of them: documents of two sentences of three words for GPT and BERT, pairs of
three words for translation. They are prepared first, which is not measured; then a process of its own, the fourth of 64
ranks, opens them and takes the first batch.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from src.data import LMDataModule, MLMDataModule, TranslationDataModule
from tests.conftest import WORDS

NETWORKS = ("gpt", "bert", "translation")
RANK, RANKS = 3, 64


def write(rows: int, folder: Path) -> None:
    """Write documents and pairs."""
    drawn = random.Random(0)
    with (folder / "text.txt").open("w") as text, (folder / "pairs.tsv").open("w") as pairs:
        pairs.write("en\tfr\n")
        for _ in range(rows):
            first, second = (" ".join(drawn.choices(WORDS, k=3)) for _ in range(2))
            text.write(f"{first}\n{second}%")
            pairs.write(f"{first}\t{second}\n")


def data_module(network: str, folder: Path) -> Any:
    """Make the data, prepared where they are not yet."""
    arguments: dict[str, Any] = {"cache_dir": str(folder / "cache"), "tokenizer_vocab_size": 300}
    if network == "translation":
        data: Any = TranslationDataModule(source=str(folder / "pairs.tsv"), **arguments)
    else:
        module = LMDataModule if network == "gpt" else MLMDataModule
        data = module(source=str(folder / "text.txt"), document_separator="%", seq_len=16, **arguments)
    data.prepare_data()
    return data


def measured(network: str, folder: Path) -> None:
    """Print the seconds until the first batch, the MiB that it took, and the rows of an epoch."""
    data = data_module(network, folder)
    data._ranks = lambda: {"rank": RANK, "world_size": RANKS}
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    data.setup("fit")
    next(iter(data.train_dataloader()))
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([seconds, (peak - before) / 1024, len(data.dataset("train"))]), file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measured(arguments.one[0], Path(arguments.one[1]))
        return
    print("| network | documents or pairs | rows of an epoch | seconds to the first batch | MiB more |")
    print("| --- | --- | --- | --- | --- |")
    for n in arguments.rows:
        with TemporaryDirectory() as name:
            write(n, Path(name))
            for network in NETWORKS:
                command = [sys.executable, "-m", "tests.data.measure_startup", "--one", network, name]
                for _ in range(2):  # the first prepares
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                seconds, more, rows = json.loads(done.stderr.splitlines()[-1])
                print(f"| {network} | {n:,} | {rows:,} | {seconds:.2f} | {more:.0f} |", flush=True)


if __name__ == "__main__":
    main()
