"""A run of a sweep, in a process of its own."""

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from src.atomic import write_text
from src.errors import Diverged, InputError, Preempted

PREEMPTED = "preempted"  # by a signal: the run is to be done again

# trains by a command line with some more callbacks, as `python -m src fit` does
Fit = Callable[[list[str], list[Any]], None]


def run_trial(
    fit: Fit,
    folder: Path,
    metric: str,
    max_tokens: int | None,
    threads: int,
    device_slot: int,
    directory: Path,
    parent: Connection,
) -> None:
    """Train, and write ``result.json`` into the folder, atomically: by it alone is a run judged.

    An exit status says little of what a run has reached before it ended.

    Args:
        fit: trains.
        folder: where the run's ``config.yaml`` lies, and where all that it leaves goes.
        metric: that the run is judged by.
        max_tokens: that it may train on.
        threads: to compute with.
        device_slot: which accelerator, where there are any; each run has one.
        directory: the working directory.
        parent: takes each validation's step and value, and answers whether the run is to be pruned.
    """
    from src.extras.sweep.recorder import Pruned, Recorder  # Lightning: the process that starts this one has no need

    _prepare_process(folder, threads, device_slot, directory)
    command = ["fit", "--config", str(folder / "config.yaml")]
    sys.argv[1:] = command  # for the record of the run, which can be done again by it

    def report(step: int, value: float) -> bool:
        parent.send((step, value))
        return bool(parent.recv())

    recorder = Recorder(metric, report, max_tokens)
    state, reason = "failed", "it ended before its last step"
    try:
        fit(command, [recorder])
        if "batches" in recorder.record and recorder.curve:
            state, reason = "complete", ""
    except Diverged as end:
        state, reason = "diverged", str(end)
    except Pruned as end:
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
    write_text(folder / "result.json", json.dumps(result, indent=1))


def _prepare_process(folder: Path, threads: int, device_slot: int, directory: Path) -> None:
    """Give this process the output, threads and device of its run, and let it end with the sweep."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's: the sweep itself stops its runs
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.chdir(directory)
    with (folder / "output.txt").open("ab") as output:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    torch.set_num_threads(threads)
    os.environ.update(visible_device(device_slot, torch.cuda.device_count()))


def visible_device(slot: int, n_devices: int) -> dict[str, str]:
    """Return the environment in which a run sees one of the sweep's accelerators; empty where there are none."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = visible or [str(i) for i in range(n_devices)]
    return {"CUDA_VISIBLE_DEVICES": names[slot % len(names)]} if n_devices else {}


def _end_with_parent() -> None:
    """End when the sweep is killed, so that no run is left in the way of its next start."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
