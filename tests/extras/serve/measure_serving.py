"""Measure the tokens a second of a server with several clients at once, beside `generate` with batches as large.

python -m tests.extras.serve.measure_serving --checkpoint logs/gpt/version_0/checkpoints/best.ckpt
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from src.checkpoint import load_writer, read_checkpoint
from src.decoding import Writer, generate
from tests.extras.serve.conftest import Server

PROMPTS = ["The history of", "In the", "A city", "The first", "It is", "One of the", "During", "The"]


def timed(function: Callable[[], list[int]]) -> float:
    """The tokens a second of a function that gives the tokens of each answer."""
    started = time.perf_counter()
    tokens = sum(function())
    return tokens / (time.perf_counter() - started)


def main() -> None:
    """Take both in turns, so that what else the machine does is alike for both, and print the medians."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--checkpoint", required=True)
    options.add_argument("--tokens", type=int, default=64)
    options.add_argument("--requests", type=int, default=200)
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    writer = Writer(*load_writer(read_checkpoint(chosen.checkpoint), chosen.checkpoint, "generate"))
    prompts = [writer.encode(prompt) for prompt in PROMPTS]
    command = [sys.executable, "-m", "src", "serve", "--checkpoint", chosen.checkpoint, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    server = Server(int(re.match(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())[1]))

    few = chosen.requests // len(PROMPTS)  # one at a time is slow

    def batches(size: int, n: int) -> list[int]:
        found: list[int] = []
        while len(found) < n:
            batch = [prompts[(len(found) + i) % len(prompts)] for i in range(size)]
            settings = {"max_new_tokens": chosen.tokens, "temperature": 0.0, "eos_id": writer.eos}
            found += map(len, generate(writer.model, batch, **settings))
        return found

    def one(i: int, stream: bool) -> int:
        request = {"text": PROMPTS[i % len(PROMPTS)], "max_new_tokens": chosen.tokens, "temperature": 0}
        if stream:
            *_, (_, done) = server.events(**request)
            return done["tokens"]
        return server.ask("generate", **request)["tokens"]

    def served(clients: int, n: int, stream: bool) -> list[int]:
        with ThreadPoolExecutor(clients) as pool:
            return list(pool.map(lambda i: one(i, stream), range(n)))

    ways = {
        "generate, batches of 8": lambda: batches(8, chosen.requests),
        "served, 8 clients": lambda: served(8, chosen.requests, stream=False),
        "served, 8 clients, streamed": lambda: served(8, chosen.requests, stream=True),
        "generate, one at a time": lambda: batches(1, few),
        "served, 1 client": lambda: served(1, few, stream=False),
    }
    try:
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(chosen.rounds):
            for name, way in ways.items():
                speeds[name].append(timed(way))
    finally:
        process.terminate()
    print(
        f"{chosen.requests} requests of {chosen.tokens} tokens ({few} one at a time), greedy; torch {torch.__version__}"
    )
    for name, found in speeds.items():
        print(
            f"{name:<28} {sorted(found)[len(found) // 2]:8.0f} tokens a second ({min(found):.0f} to {max(found):.0f})"
        )


if __name__ == "__main__":
    main()
