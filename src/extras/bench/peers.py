"""What a run is measured against: other programs, in this process or by their command lines."""

import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from src.errors import InputError
from src.files import check_file

Batch = dict[str, Tensor]


class Search(NamedTuple):
    """How a batch is decoded, as both programs can do it: the results are comparable token for token.

    Args:
        beam: hypotheses; 1 is greedy.
        alpha: a log-probability is divided by ``length ** alpha``, the only length penalty that both know.
        max_len: tokens at most.
        end_id: ends a sentence.
    """

    beam: int
    alpha: float
    max_len: int
    end_id: int


class External:
    """A shell script that runs another program and prints its speed.

    What counts is the last number in front of ``tokens/s`` (of ``sentences/s`` in decoding) in what it prints. A
    program that prints milliseconds a step needs a line of ``awk`` behind it: see docs/extras/bench/peers.

    Args:
        path: of the script, run by ``sh`` in the current folder.
        unit: ``tokens/s`` or ``sentences/s``.
    """

    def __init__(self, path: Path, unit: str) -> None:
        check_file(path, is_text=True)
        self.path, self.unit = path, unit
        self.about: dict[str, Any] = {"program": str(path), "script": path.read_text(encoding="utf-8")}

    def rate(self, batches: object = None) -> float:
        """Run it, and return its speed; the batches of the run here are not for it."""
        done = subprocess.run(["sh", str(self.path)], capture_output=True, text=True, errors="replace")
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise InputError(
                f"--against {self.path} failed with status {done.returncode}: {lines[-1] if lines else 'no output'}"
            )
        found = read_rate(done.stdout + "\n" + done.stderr, self.unit)
        if not found:
            raise InputError(f"--against {self.path} printed no number in front of {self.unit}")
        return found


def read_rate(output: str, unit: str) -> float | None:
    """Find the last number in front of ``tokens/s`` (or ``sentences/s``); commas may part thousands."""
    found = re.findall(rf"(\d[\d,]*(?:\.\d+)?(?:[eE][+-]?\d+)?)[ \t]*{re.escape(unit)}", output)
    return float(found[-1].replace(",", "")) if found else None
