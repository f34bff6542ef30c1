"""Measure how fast GPT-2 small and BERT base train on one GPU, as their papers shape them, on made-up text.

    python -m tests.extras.bench.measure_gpu [--output FOLDER] [--minutes 4]

It needs no network: the text is random words, as frequent as words are (Zipf's law), out of which the tokenizers get
vocabularies of the published sizes. The speed does not depend on what is read. Each benchmark is a process of its own
with a time limit; one that fails or takes too long is told, and the others follow.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[3]
WORDS, MEGABYTES = 60_000, 16
GPT = "--config configs/paper/gpt2_small.yaml --data.tokenizer_vocab_size 50257 --data.batch_size 32"
BERT = "--config configs/paper/bert_base.yaml --data.tokenizer_vocab_size 30522 --data.more_sources [] --data.name null"
# name -> options of `bench`; the first of a network prepares its data
BENCHMARKS = {
    "GPT-2 124M, 1,024 tokens, compiled": f"{GPT} --model.compile true",
    "GPT-2 124M, 1,024 tokens": f"{GPT} --model.compile false",
    "BERT 110M, 512 tokens, compiled": f"{BERT} --model.compile true --data.seq_len 512 --data.batch_size 64",
    "BERT 110M, 128 tokens, compiled": f"{BERT} --model.compile true --data.seq_len 128 --data.batch_size 256",
}
EACH = "--trainer.precision bf16-mixed --trainer.accumulate_grad_batches 1 --data.validation_fraction 0.01"
EACH += " --data.test_fraction 0.01 --rounds 3 --warmup 5 --steps 10"
LONGEST = 100  # seconds of one


def write_text(path: Path, megabytes: float) -> None:
    """Write documents of 30 sentences of 20 random words each, with blank lines between them."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(rng.choice(letters, n)) for n in rng.integers(4, 9, WORDS)])
    frequency = 1 / np.arange(10, WORDS + 10)
    drawn = rng.choice(words, (int(megabytes * 1e6 / 7 / 20), 20), p=frequency / frequency.sum())
    sentences = [" ".join(row).capitalize() + "." for row in drawn]
    documents = [" ".join(sentences[i : i + 30]) for i in range(0, len(sentences), 30)]
    path.write_text("\n\n".join(documents), encoding="utf-8")


def measure(options: list[str], output: Path, seconds: float) -> str:
    """Run a benchmark, and give its row of the table, or the reason why there is none."""
    command = [sys.executable, "-m", "src", "bench", *options, "--output", str(output)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=max(1, seconds))
    except subprocess.TimeoutExpired:
        return f"took longer than {seconds:.0f} s |  |  |  |  |  |"
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        return f"failed: {lines[-1] if lines else done.returncode} |  |  |  |  |  |"
    found = json.loads((output / "bench.json").read_text())
    rates, steps, fractions = sorted(found["own"]), found["steps"], found["utilisations"]
    spread = f"{rates[len(rates) // 2]:,.0f} ({rates[0]:,.0f} to {rates[-1]:,.0f})"
    mfu = f"{fractions['MFU']:.1%} of {steps['data_sheet'] / 1e12:,.0f} TFLOP/s" if "MFU" in fractions else "none known"
    used = f"{fractions['hardware utilisation']:.1%} of {steps['peak'] / 1e12:,.0f} TFLOP/s"
    settings, memory = found["settings"], f"{steps['peak_memory'] / 2**30:.1f} GiB"
    return f"{spread} | {used} | {mfu} | {memory} | {settings['network']} | {settings['first batch'].split(',')[0]} |"


def main(arguments: list[str] | None = None) -> None:
    """Run them all, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=None, help="folder for the record of each, by default none")
    parser.add_argument("--minutes", type=float, default=4.0, help="for all of them")
    parser.add_argument("--megabytes", type=float, default=MEGABYTES, help="of text")
    known, more = parser.parse_known_args(arguments)
    end = time.monotonic() + 60 * known.minutes
    print(
        "| | tokens/s: median (min to max) | of the measured peak | MFU | memory | network | first batch |", flush=True
    )
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        write_text(text, known.megabytes)
        data = ["--data.source", str(text), "--data.document_separator", r"\n\n", "--data.cache_dir", folder]
        for i, (name, options) in enumerate(BENCHMARKS.items()):
            output = (known.output or Path(folder)) / f"bench{i}"
            seconds = min(LONGEST, end - time.monotonic())
            row = measure([*options.split(), *EACH.split(), *data, *more], output, seconds)
            print(f"| {name} | {row}", flush=True)


if __name__ == "__main__":
    main()
