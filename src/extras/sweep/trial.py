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

from src.atomic import write_text
from src.errors import Diverged, InputError, Preempted

PREEMPTED = "preempted"  # by a signal: the run is to be done again

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
    from src.extras.sweep.recorder import (  # Lightning: the process that starts this one does without it
        Recorder,
        Unpromising,
    )

    _settle(assignment)
    command = ["fit", "--config", str(assignment.folder / "config.yaml")]
    sys.argv[1:] = command  # for the record of the run, which can be done again by it

    def report(step: int, value: float) -> bool:
        parent.send((step, value))
        return bool(parent.recv())

    recorder = Recorder(assignment.metric, report)
    state, reason = "failed", "it ended before its last step"
    try:
        fit(command, [recorder])
        if "batches" in recorder.record and recorder.curve:
            state, reason = "complete", ""
    except Diverged as end:
        state, reason = "diverged", str(end)
    except Unpromising as end:
        state, reason = "pruned", str(end)
    except Preempted as end:
        state, reason = PREEMPTED, str(end)
    except InputError as error:
        reason = str(error)
    except BaseException as error:
        traceback.print_exc()
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    result = {"state": state, "reason": reason, "curve": recorder.curve, **recorder.record}
    if recorder.curve:
        result["value"] = recorder.curve[-1][1]
    write_text(assignment.folder / "result.json", json.dumps(result, indent=1))


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


def read_result(path: Path) -> dict[str, Any] | None:
    """What a run left, or nothing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
