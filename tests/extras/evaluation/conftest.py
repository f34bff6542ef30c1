"""Checkpoints of small networks with random weights, and data in the formats that the hub has."""

import json
from pathlib import Path

import pytest

from src.checkpoint import save_checkpoint
from tests.random_networks import checkpoint_of

WORDS = "the cat sat on a mat while seven grey dogs ran over old stone bridges and nobody said one word".split()  # noqa: SIM905


def sentence(i: int, n: int = 6) -> str:
    """The i-th of many sentences."""
    return " ".join(WORDS[(i * j + j * j + i // 3) % len(WORDS)] for j in range(1, n + 1))


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """A checkpoint of each architecture that a suite is for."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in ("gpt", "bert", "transformer"):
        save_checkpoint(checkpoint_of(name)[1], folder / f"{name}.ckpt")
    return {name: folder / f"{name}.ckpt" for name in ("gpt", "bert", "transformer")}


@pytest.fixture
def in_folder(tmp_path, monkeypatch) -> Path:
    """Work in a folder of the test's own: what is prepared goes to its .cache."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def evaluate(run, checkpoints, in_folder):
    """Evaluate a checkpoint into a folder; gives the record of the results, and what was printed."""

    def command(name: str, *options: object, output: str = "results") -> tuple[dict, str]:
        status, out, err = run("evaluate", "--checkpoint", checkpoints[name], "--output", output, *options)
        assert status == 0, err
        return json.loads(Path(output, "results.json").read_text(encoding="utf-8")), out

    return command
