"""Running what waits in a study, several runs at a time, each in a process of its own."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import FrozenTrial

from src.extras.sweep.configuration import with_settings
from src.extras.sweep.definition import Parameters, Sweep
from src.extras.sweep.queue import Queue, run_of
from src.extras.sweep.trial import PREEMPTED, Fit, run_trial

POLL_SECONDS = 1.0  # between two looks at what other processes of the study have done


def cell_config(sweep: Sweep, config: dict[str, Any], parameters: Parameters, seed: int) -> dict[str, Any]:
    """Make the complete configuration of a run, less the folder that it goes to."""
    return with_settings(config, {**sweep.settings(parameters), "seed_everything": seed})


@dataclass
class ActiveRun:
    """A run that is under way."""

    trial: FrozenTrial
    label: str
    folder: Path
    device_slot: int
    process: ForkServerProcess
    pipe: Connection
    started: float = field(default_factory=time.monotonic)


class Scheduler:
    """Keep ``jobs`` runs going until every run of the study is finished.

    Args:
        queue: what waits.
        config: what the cells' settings lie over.
        folder: of the study; runs go to ``runs``.
        context: starts processes.
        fit: trains.
        jobs: how many runs at a time.
        threads: that each run computes with.
    """

    def __init__(
        self,
        queue: Queue,
        config: dict[str, Any],
        folder: Path,
        context: ForkServerContext,
        fit: Fit,
        jobs: int,
        threads: int,
    ) -> None:
        self.queue, self.config, self.folder, self.context, self.fit = queue, config, folder, context, fit
        self.jobs, self.threads = jobs, threads
        self.active: list[ActiveRun] = []
        self._waits = False

    def run(self) -> None:
        """Run until all is finished, here or elsewhere; on any end before, stop the runs and give them back."""
        try:
            with _stop_on_sigterm():
                while self._start_runs():
                    self._wait()
        finally:
            for run in self.active:
                run.process.kill()
            for run in self.active:
                run.process.join()
                self.queue.release(run.trial)

    def _start_runs(self) -> bool:
        """Start as many as may run at a time; return whether anything is left to wait for."""
        while len(self.active) < self.jobs:
            trial = self.queue.claim()
            if trial is None:
                break
            self.active.append(self._started(trial))
        if self.active:
            return True
        if self.queue.is_done():
            return False
        if not self._waits:
            self._waits = True
            print("waiting for runs of other processes on this study", flush=True)
        return True

    def _started(self, trial: FrozenTrial) -> ActiveRun:
        sweep, seed = self.queue.sweep, run_of(trial).seed
        label = f"{sweep.label(trial.params)}, seed {seed}"
        name = f"{trial.number:04d}-" + re.sub(r"[^\w.=+-]+", "_", label.replace("seed ", "seed="))
        folder = self.folder / "runs" / name
        folder.mkdir(parents=True)
        settings = {
            "experiment": name,
            "trainer.default_root_dir": str(folder.parent),
            # the columns of TensorBoard's table: what is varied, and what came out
            "hparams.keys": [axis.key for axis, _ in sweep.chosen(trial.params)],
            "hparams.metrics": [sweep.metric],
        }
        config = with_settings(cell_config(sweep, self.config, trial.params, seed), settings)
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        slot = min(set(range(self.jobs)) - {run.device_slot for run in self.active})
        ours, its = self.context.Pipe()
        arguments = (self.fit, folder.absolute(), sweep.metric, self.threads, slot, Path.cwd(), its)
        process = self.context.Process(target=run_trial, args=arguments)
        process.start()
        its.close()
        return ActiveRun(trial, label, folder, slot, process, ours)

    def _wait(self) -> None:
        """Wait until a run reports or ends, or it is time to look at the study again."""
        if not self.active:
            time.sleep(POLL_SECONDS)
        ready = connection.wait([r.pipe for r in self.active] + [r.process.sentinel for r in self.active], POLL_SECONDS)
        for run in list(self.active):
            if run.pipe in ready:
                self._answer(run)
            if not run.process.is_alive():
                self._finish(run)
        self.queue.heartbeat()

    def _answer(self, run: ActiveRun) -> None:
        try:
            step, value = run.pipe.recv()
            run.pipe.send(self.queue.report(run.trial, step, value))
        except (EOFError, OSError):  # it has ended
            run.process.join()

    def _finish(self, run: ActiveRun) -> None:
        run.process.join()
        run.pipe.close()
        self.active.remove(run)
        path = run.folder / "result.json"
        result = json.loads(path.read_text("utf-8")) if path.is_file() else _without_result(run.process.exitcode)
        if result["state"] == PREEMPTED:
            self.queue.release(run.trial)
            print(f"{run.label}: {result['reason']}; it is to be done again", flush=True)
            return
        result |= {"folder": str(run.folder), "threads": self.threads, "machine": os.uname().nodename}
        self.queue.finish(run.trial, result)
        done, known = self.queue.progress()
        outcome = f"{self.queue.sweep.metric} {result['value']:.4f}" if "value" in result else ""
        if result["state"] != "complete":
            outcome = f"{result['state']}: {result['reason']}"
        print(f"[{done}/{known}] {run.label}: {outcome} ({time.monotonic() - run.started:.0f} s)", flush=True)


def _without_result(status: int | None) -> dict[str, Any]:
    """What is known of a run that wrote no result."""
    if status == -signal.SIGTERM:
        return {"state": PREEMPTED, "reason": "asked to end by SIGTERM"}
    if status is not None and status < 0:
        return {"state": "failed", "reason": f"killed by {signal.Signals(-status).name}"}
    return {"state": "failed", "reason": f"its process ended with status {status} and left no result"}


@contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end a sweep as Ctrl-C does, so that its runs are given back."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
