"""Groups of texts are handed to processes, and what these make of them comes back in order."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src.data import LMDataModule, MLMDataModule, TranslationDataModule
from src.data.workers import in_parallel
from src.errors import InputError
from tests.conftest import WORDS, prepared

PREPARE = """
import sys
from src.data import LMDataModule, journal
journal.EVERY = 0.0
LMDataModule(source=sys.argv[1], document_separator="%", tokenizer="byte", cache_dir=sys.argv[2]).prepare_data()
"""


def slow_square(n):
    time.sleep(0.02 * (n % 3 == 0))
    return n * n


def refuse(n):
    if n == 5:
        raise InputError("five")
    return n


def end(n):
    if n == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def test_results_come_in_order_and_few_items_are_read_ahead(monkeypatch):
    monkeypatch.setattr("src.data.workers.n_processes", lambda: 3)
    read = []
    found = in_parallel(slow_square, (read.append(n) or n for n in range(40)))
    for i, (item, result) in enumerate(found):
        assert (item, result) == (i, i * i)
        assert len(read) <= i + 6
    assert len(read) == 40


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_and_one_item_need_no_process(n):
    assert [(item, pid == os.getpid()) for item, pid in in_parallel(lambda _: os.getpid(), range(n))] == [
        (i, True) for i in range(n)
    ]


def test_what_a_process_refuses_is_refused(monkeypatch):
    monkeypatch.setattr("src.data.workers.n_processes", lambda: 2)
    with pytest.raises(InputError, match=r"^five$"):
        list(in_parallel(refuse, range(9)))


def test_a_process_that_is_killed_ends_the_preparation_in_one_line(monkeypatch):
    monkeypatch.setattr("src.data.workers.n_processes", lambda: 2)
    with pytest.raises(InputError, match="one of the 2 processes that tokenise was killed from outside"):
        list(in_parallel(end, range(9)))


@pytest.mark.parametrize("module", [LMDataModule, MLMDataModule, TranslationDataModule])
def test_any_number_of_processes_prepares_the_same_files(tmp_path, monkeypatch, module):
    monkeypatch.setattr("src.data.texts.GROUP_CHARACTERS", 3000)
    sentences = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(9)) + "." for i in range(1200)]
    if module is TranslationDataModule:
        rows = [*(f"{text}\t{text[::-1]}" for text in sentences), "\t", "x\t" + "y " * 300]
        (tmp_path / "pairs.tsv").write_text("\n".join(["en\tfr", *rows]))
        options = {"source": str(tmp_path / "pairs.tsv")}
    else:
        (tmp_path / "text.txt").write_text("%".join(" ".join(sentences[i : i + i % 7]) for i in range(0, 1200, 5)))
        options = {"source": str(tmp_path / "text.txt"), "document_separator": "%"}
    found = []
    for n in (1, 3):
        monkeypatch.setattr("src.data.workers.n_processes", lambda n=n: n)
        data = prepared(module(**options, tokenizer_vocab_size=300, cache_dir=str(tmp_path / str(n))))
        found.append({path.name: path.read_bytes() for path in data.folder.iterdir()})
    assert found[0] == found[1]


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="its processes are found by /proc")
def test_a_killed_preparation_takes_its_processes_along_and_goes_on(tmp_path):
    (tmp_path / "text.txt").write_text("%".join(f"Row {i} of a long text. " * 300 for i in range(800)))
    arguments = [str(tmp_path / "text.txt"), str(tmp_path / "cache")]
    process = subprocess.Popen([sys.executable, "-c", PREPARE, *arguments], stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob("cache/*.partial/train.journal")):
        time.sleep(0.01)
    started = children(process.pid)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    n_cores = len(os.sched_getaffinity(0))
    assert len(started) == (n_cores if n_cores > 1 else 0)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)
    again = subprocess.run([sys.executable, "-c", PREPARE, *arguments], check=True, capture_output=True, text=True)
    assert "going on with the train split" in again.stdout
    (resumed,) = tmp_path.glob("cache/*-*[0-9a-f]")
    subprocess.run([sys.executable, "-c", PREPARE, arguments[0], str(tmp_path / "whole")], check=True)
    (whole,) = tmp_path.glob("whole/*-*[0-9a-f]")
    assert {p.name: p.read_bytes() for p in resumed.iterdir()} == {p.name: p.read_bytes() for p in whole.iterdir()}
