"""A run of a sweep, in a process of its own."""

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from src.errors import Diverged, InputError, RunEnded

# trains by a command line with some more callbacks, as `python -m src fit` does
Fit = Callable[[list[str], list[Any]], None]


@dataclass(frozen=True)
class Assignment:
    """What a process is to run.

    Args:
        directory: the working directory.
        folder: where the run's ``config.yaml`` lies, and where all that it leaves goes.
        threads: to compute with.
        device: which accelerator, where there are any; each run has one.
        metric: that the run is judged by.
        seed: of the run.
        parameters: of its cell.
    """

    directory: Path
    folder: Path
    threads: int
    device: int
    metric: str
    seed: int
    parameters: dict[str, Any]


def run_trial(fit: Fit, assignment: Assignment, parent: Connection) -> None:
    """Train, and leave ``result.json`` in the folder, whole or not at all: by it alone is a run judged.

    An exit status says little of what a run has reached before it ended.
    """
    from src.sweep.recorder import (
        EarlyEndError,
        Recorder,
    )  # Lightning: the process that starts this one does not need it

    _settle(assignment)

    def report(step: int, value: float) -> bool:
        parent.send((step, value))
        return bool(parent.recv())

    recorder = Recorder(assignment.metric, report)
    state, reason = "failed", "it ended before its last step"
    try:
        fit(["fit", "--config", str(assignment.folder / "config.yaml")], [recorder])
        if "batches" in recorder.record and recorder.curve:
            state, reason = "complete", ""
    except EarlyEndError as stop:
        state, reason = stop.state, str(stop)
    except (InputError, RunEnded) as error:
        state, reason = ("diverged" if isinstance(error, Diverged) else "failed"), str(error)
    except BaseException as error:
        traceback.print_exc()
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    result = {"state": state, "reason": reason, "curve": recorder.curve, **recorder.record}
    if recorder.curve:
        result["value"] = recorder.curve[-1][1]
    write_result(assignment.folder / "result.json", result)


def _settle(assignment: Assignment) -> None:
    """Make this process one that computes for a sweep."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's: the sweep itself stops its runs
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.chdir(assignment.directory)
    with (assignment.folder / "output.txt").open("ab") as output:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    torch.set_num_threads(assignment.threads)
    os.environ.update(visible_device(assignment.device, torch.cuda.device_count()))


def visible_device(seat: int, n_devices: int) -> dict[str, str]:
    """The environment in which a run sees one accelerator, of those that the sweep sees; empty where it sees none."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = visible or [str(i) for i in range(n_devices)]
    return {"CUDA_VISIBLE_DEVICES": names[seat % len(names)]} if n_devices else {}


def _end_with_parent() -> None:
    """A sweep that was killed must not leave its runs behind: they would be in the way of its next start."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write JSON beside its place, then rename it."""
    aside = path.with_suffix(".partial")
    with aside.open("w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def read_result(path: Path) -> dict[str, Any] | None:
    """What a run left, or nothing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
