"""What several tests need: a small corpus, a small configuration, and a way to run the command line."""

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml

import src.cli
from src.data import embedded

# the reason of a test that is skipped begins with this where a package is all that it lacks
LACKS = "needs the package"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of ZeRO where DeepSpeed, which is compiled on the machine, could not be, and those of CUDA."""
    deepspeed, cuda = find_spec("deepspeed") is not None, torch.cuda.is_available()
    for item in items:
        if not deepspeed and re.search(r"\[.*zero[123]|deepspeed", item.nodeid):
            item.add_marker(pytest.mark.skip(reason=f"{LACKS} deepspeed"))
        if not cuda and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it in one line if tests were skipped for want of a package."""
    reasons = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", [])]
    lacking = [reason.partition(LACKS)[2].strip() for reason in reasons if LACKS in reason]
    if lacking:
        terminalreporter.write_line(
            f"{len(lacking)} tests were skipped for want of a package: {', '.join(sorted(set(lacking)))}", red=True
        )


def prepared(module: L.LightningDataModule):
    """A data module as a trainer has it after its first step."""
    module.prepare_data()
    return module


# a pure function that takes the articles out of their markup for many seconds: once for all tests
embedded.plain_text = cache(embedded.plain_text)

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "while",
    "seven",
    "grey",
    "dogs",
    "ran",
    "over",
    "old",
    "stone",
    "bridges",
    "and",
    "nobody",
    "said",
    "one",
    "word",
]


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """Sixty short documents with blank lines between them."""
    documents = [" ".join(WORDS[(i * j + j * j) % len(WORDS)] for j in range(30 + i % 7)) + f" {i}." for i in range(60)]
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def config(tmp_path: Path, text_file: Path) -> Path:
    """A GPT that trains on that corpus in a second."""
    settings = {
        "experiment": "tiny",
        "model": {
            "class_path": "GPTModule",
            "init_args": {
                "config": {
                    "max_seq_len": 32,
                    "d_model": 16,
                    "n_heads": 2,
                    "n_layers": 1,
                    "dropout": 0.0,
                    "attention_dropout": 0.0,
                },
                "optimizer": {"class_path": "AdamW", "init_args": {"lr": 1e-2}},
                "schedule": {"class_path": "Cosine", "init_args": {"warmup_steps": 2}},
            },
        },
        "data": {
            "class_path": "LMDataModule",
            "init_args": {
                "source": str(text_file),
                "document_separator": "\n\n",
                "tokenizer": "char",
                "seq_len": 32,
                "batch_size": 4,
                "cache_dir": str(tmp_path / "cache"),
            },
        },
        "trainer": {
            "max_steps": 12,
            "val_check_interval": 6,
            "check_val_every_n_epoch": None,
            "log_every_n_steps": 2,
            "accelerator": "cpu",
            "precision": "32-true",
            "default_root_dir": str(tmp_path / "logs"),
        },
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """Run a command line in this process; gives its exit status, output and error output."""

    def command(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = 0
        try:
            src.cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return command
