"""Speed and memory of preparing data, beside `tokenizers` alone on the same texts.

    python -m tests.data.measure_preparation --megabytes 20 200 1000

Text is drawn from what installs with the project: paragraphs of the embedded articles, or pairs of messages, in random
order, with a tokenizer that is trained before. For each network and size the two take turns, each in a process of its
own. Preparation reads, splits off validation and test, tokenises, and writes; the other reads the same files, gives the
same texts to `encode_batch` in groups, and drops what that gives.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer

from src.data import LMDataModule, MLMDataModule, TranslationDataModule
from src.data.embedded import articles, translations
from src.data.texts import Piece, grouped, read_documents
from src.files import read_lines
from src.tokenization import train_bpe, train_wordpiece

SEPARATOR = "\n\n\n"
NETWORKS = ("gpt", "bert", "translation")


def documents(size: int) -> Iterator[str]:
    """Give about so many characters in documents of 5 to 50 paragraphs."""
    paragraphs = [line for _, text in articles() for line in text.splitlines() if line]
    drawn = random.Random(0)
    while size > 0:
        document = "\n".join(drawn.choices(paragraphs, k=drawn.randint(5, 50)))
        size -= len(document)
        yield document


def pairs(size: int) -> Iterator[tuple[str, str]]:
    """Give about so many characters in pairs."""
    messages = [pair for pair in translations(Path(".cache/wheels")) if "\n" not in "".join(pair)]
    drawn = random.Random(0)
    while size > 0:
        pair = drawn.choice(messages)
        size -= sum(map(len, pair))
        yield pair


def write(network: str, size: int, folder: Path) -> None:
    """Write texts and tokenizer."""
    if network == "translation":
        with (folder / "train.en").open("w") as source, (folder / "train.fr").open("w") as target:
            for pair in pairs(size):
                print(pair[0], file=source)
                print(pair[1], file=target)
        tokenizer = train_bpe((text for pair in pairs(1_000_000) for text in pair), 8000)
    else:
        with (folder / "text.txt").open("w") as file:
            for document in documents(size):
                file.write(document + SEPARATOR)
        train = train_wordpiece if network == "bert" else train_bpe
        tokenizer = train(documents(5_000_000), 8000)
    tokenizer.save(str(folder / "tokenizer.json"))


def data_module(network: str, folder: Path, cache: str) -> Any:
    """Make the data as a configuration would."""
    arguments: dict[str, Any] = {"tokenizer": str(folder / "tokenizer.json"), "cache_dir": cache}
    if network == "translation":
        return TranslationDataModule(source=str(folder), **arguments)
    module = LMDataModule if network == "gpt" else MLMDataModule
    return module(source=str(folder / "text.txt"), document_separator=SEPARATOR, **arguments)


def prepare(network: str, folder: Path) -> None:
    """Prepare it."""
    with TemporaryDirectory(dir=folder) as cache:
        data_module(network, folder, cache).prepare_data()


def alone(network: str, folder: Path) -> None:
    """Tokenise it."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(texts: Iterable[Piece]) -> None:
        for group in grouped(texts):
            tokenizer.encode_batch([text.text for text in group], add_special_tokens=False)

    if network == "translation":
        for language in ("en", "fr"):
            encode(map(Piece, read_lines(folder / f"train.{language}", strict=True)))
    else:
        encode(read_documents(folder / "text.txt", SEPARATOR, "utf-8"))


def measured(what: str, network: str, folder: Path) -> None:
    """Print the seconds, the CPU seconds and the peak memory in MiB."""
    start, before = time.perf_counter(), os.times()
    {"prepare": prepare, "alone": alone}[what](network, folder)
    cpu = sum(os.times()[:4]) - sum(before[:4])  # its own and that of the processes that it began
    peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps([time.perf_counter() - start, cpu, max(peaks)]), file=sys.stderr)


def run(what: str, network: str, folder: Path) -> list[float]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "tests.data.measure_preparation", "--one", what, network, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds: list[float] = json.loads(done.stderr.splitlines()[-1])
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[20])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measured(arguments.one[0], arguments.one[1], Path(arguments.one[2]))
        return
    print("| network | MB | alone, s | prepare, s | ratio of the speeds | CPU, s | peak memory, MiB: alone | prepare |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for network in arguments.networks:
        for size in arguments.megabytes:
            with TemporaryDirectory() as name:
                folder = Path(name)
                write(network, size * 1_000_000, folder)
                rounds = [
                    [run(what, network, folder) for what in ("alone", "prepare")] for _ in range(arguments.rounds)
                ]
            others, ours = zip(*rounds, strict=True)
            ratio = median(a[0] / b[0] for a, b in rounds)
            print(
                f"| {network} | {size:,} | {median(a[0] for a in others):.1f} | {median(b[0] for b in ours):.1f} "
                f"| {ratio:.2f} | {median(a[1] for a in others):.1f}, {median(b[1] for b in ours):.1f} "
                f"| {max(a[2] for a in others):,.0f} | {max(b[2] for b in ours):,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
