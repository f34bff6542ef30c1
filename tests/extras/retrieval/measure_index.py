"""Size of an index and time of a query, at 1,000, 10,000 and 100,000 passages; recall of the approximate ones.

    python -m tests.extras.retrieval.measure_index INDEX [--n 1000 10000 100000]

INDEX has vectors. Words: overlapping windows of 100 words of the embedded articles, as many as it takes. Vectors: those
of INDEX, and beyond them mixtures of two of them, normalize(a u + (1 - a) v + noise) with a between 0.5 and 1 and noise
of length 0.2, so that there are near neighbours as there are in text. Queries are mixtures that are not in the index.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from src.data import embedded
from src.extras.retrieval.dense import Dense, write_vectors
from src.extras.retrieval.index import Index
from src.extras.retrieval.index_files import Kind
from src.extras.retrieval.lexical import Lexical, Words, write_bm25

QUERIES = 100


def mixtures(vectors: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    a = rng.uniform(0.5, 1, (n, 1))
    u, v = vectors[rng.integers(len(vectors), size=n)], vectors[rng.integers(len(vectors), size=n)]
    noise = rng.normal(size=u.shape) * 0.2 / u.shape[1] ** 0.5
    mixed = a * u + (1 - a) * v + noise
    return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)


def median_ms(call: Callable[[int], object]) -> float:
    times = []
    for i in range(QUERIES):
        start = time.perf_counter()
        call(i)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def megabytes(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("index", type=Path)
    options.add_argument("--n", type=int, nargs="+", default=[1000, 10_000, 100_000])
    given = options.parse_args()
    rng = np.random.default_rng(0)
    real = np.concatenate([segment.dense.vectors() for segment in Index(given.index).segments if segment.dense])
    words = " ".join(text for _, text in embedded.articles()).split()
    print(f"{len(real):,} real vectors of {real.shape[1]}; {torch.get_num_threads()} threads")
    queries = mixtures(real, QUERIES, rng)
    for n in given.n:
        stride = max(1, (len(words) - 100) // n)
        texts = [" ".join(words[i * stride : i * stride + 100]) for i in range(n)]
        asked = [" ".join(words[i : i + 12]) for i in rng.integers(len(words) - 12, size=QUERIES)]
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            write_bm25(Words("english").of(texts), Path(folder))
            built = time.perf_counter() - start
            lexical = Lexical(Path(folder), "english")
            ms = median_ms(lambda i, lexical=lexical, asked=asked: lexical.search(asked[i], 10))
            print(f"{n:>7,} bm25  {megabytes(Path(folder)):8.1f} MB  {ms:8.2f} ms  built in {built:6.1f} s")
        vectors = np.concatenate([real[:n], mixtures(real, max(0, n - len(real)), rng)])
        alive = np.ones(n, bool)
        best = np.argsort(-(queries.astype(np.float64) @ vectors.T.astype(np.float64)), axis=1, kind="stable")[:, :10]
        for kind in get_args(Kind):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "v"
                start = time.perf_counter()
                write_vectors(vectors, kind, path)
                built = time.perf_counter() - start
                dense = Dense(path)
                found = [dense.search(query, 10, alive)[0] for query in queries]
                recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, best, strict=True)])
                ms = median_ms(lambda i, dense=dense, alive=alive: dense.search(queries[i], 10, alive))
                size = megabytes(path)
            print(f"{n:>7,} {kind:<5} {size:8.1f} MB  {ms:8.2f} ms  built in {built:6.1f} s  recall@10 {recall:.3f}")


if __name__ == "__main__":
    main()
