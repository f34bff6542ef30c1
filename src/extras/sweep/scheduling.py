"""Running what waits in a study, several runs at a time, each in a process of its own."""

import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import yaml

from src.errors import InputError
from src.extras.sweep.configuration import with_settings
from src.extras.sweep.definition import Parameters, Sweep
from src.extras.sweep.queue import HEARTBEAT_SECONDS, Claim, Queue
from src.extras.sweep.trial import PREEMPTED, Assignment, Fit, read_result, run_trial

POLL_SECONDS = 1.0  # between two looks at what other processes of the study have done

# checks configurations without training: what the hardware decides, or raises InputError
Check = Callable[[dict[str, Any]], dict[str, Any]]


def processes(preload: list[str], threads: int) -> ForkServerContext:
    """Where processes are forked from one that has imported what they need: that takes longer than a short run."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [*preload, "src.extras.sweep.trial", "tensorboard.summary", "torch.utils.tensorboard"]
    )
    return context


def cell_config(sweep: Sweep, config: dict[str, Any], parameters: Parameters, seed: int) -> dict[str, Any]:
    """The complete configuration of a run, less the folder that it goes to."""
    return with_settings(config, {**sweep.settings(parameters), "seed_everything": seed})


def label_of(sweep: Sweep, parameters: Parameters) -> str:
    """A cell as a person would name it, such as ``sgd, lr=0.1``."""
    parts = []
    for axis, choice in sweep.chosen(parameters):
        name = axis.key.rpartition(".")[2]
        shown = f"{choice.label:g}" if isinstance(choice.label, float) else str(choice.label)
        is_name = isinstance(choice.label, str) and len(sweep.axes) == 1 and axis in sweep.axes
        parts.append(shown if is_name else f"{name}={shown}")
    return ", ".join(parts)


@dataclass
class Run:
    """A run that is under way."""

    claim: Claim
    label: str
    folder: Path
    seat: int
    process: ForkServerProcess
    pipe: Connection
    started: float = field(default_factory=time.monotonic)
    beats: int = 0


class Scheduler:
    """Keep ``jobs`` runs going until every slot of the study is finished.

    Args:
        queue: what waits.
        config: what the cells' settings lie over.
        folder: of the study; runs go to ``runs``.
        context: from :func:`processes`.
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
        self.runs: list[Run] = []
        self._waits = False

    def run(self) -> None:
        """Until all is finished, here or elsewhere. Whatever ends it, its runs end too, and can be taken up again."""
        try:
            with _stoppable():
                while True:
                    self._start_runs()
                    if not self.runs and self.queue.is_done():
                        return
                    self._wait()
        finally:
            for run in self.runs:
                run.process.kill()
            for run in self.runs:
                run.process.join()
                self.queue.release(run.claim)

    def _start_runs(self) -> None:
        while len(self.runs) < self.jobs:
            claim = self.queue.claim()
            if claim is None:
                if not self.runs and not self._waits and not self.queue.is_done():
                    self._waits = True
                    print("waiting for runs of other processes on this study", flush=True)
                return
            self.runs.append(self._started(claim))

    def _started(self, claim: Claim) -> Run:
        label = f"{label_of(self.queue.sweep, claim.parameters)}, seed {claim.slot.seed}"
        name = f"{claim.number:04d}-" + re.sub(r"[^\w.=+-]+", "_", label.replace("seed ", "seed="))
        folder = self.folder / "runs" / name
        folder.mkdir(parents=True)
        config = cell_config(self.queue.sweep, self.config, claim.parameters, claim.slot.seed)
        settings = {
            "experiment": name,
            "trainer.default_root_dir": str(folder.parent),
            # the columns of TensorBoard's table: what is varied, and what came out
            "hparams.keys": [axis.key for axis, _ in self.queue.sweep.chosen(claim.parameters)],
            "hparams.metrics": [self.queue.sweep.metric],
        }
        config = with_settings(config, settings)
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        seat = min(set(range(self.jobs)) - {run.seat for run in self.runs})
        assignment = Assignment(
            Path.cwd(),
            folder.absolute(),
            self.threads,
            seat,
            self.queue.sweep.metric,
            claim.slot.seed,
            claim.parameters,
        )
        ours, its = self.context.Pipe()
        process = self.context.Process(target=run_trial, args=(self.fit, assignment, its))
        process.start()
        its.close()
        return Run(claim, label, folder, seat, process, ours)

    def _wait(self) -> None:
        """Until a run says something or ends, or it is time for something else."""
        if not self.runs:
            time.sleep(POLL_SECONDS)
        ready = connection.wait([r.pipe for r in self.runs] + [r.process.sentinel for r in self.runs], POLL_SECONDS)
        for run in list(self.runs):
            if run.pipe in ready:
                self._answer(run)
            if not run.process.is_alive():
                self._finish(run)
            elif time.monotonic() - run.started > run.beats * HEARTBEAT_SECONDS:
                run.beats += 1
                self.queue.heartbeat(run.claim, run.beats)

    def _answer(self, run: Run) -> None:
        try:
            step, value = run.pipe.recv()
            run.pipe.send(self.queue.report(run.claim, step, value))
        except (EOFError, OSError):  # it has ended
            run.process.join()

    def _finish(self, run: Run) -> None:
        run.process.join()
        run.pipe.close()
        self.runs.remove(run)
        result = read_result(run.folder / "result.json") or _without_result(run.process.exitcode)
        if result["state"] == PREEMPTED:
            self.queue.release(run.claim)
            print(f"{run.label}: {result['reason']}; it is to be done again", flush=True)
            return
        result |= {"folder": str(run.folder), "threads": self.threads, "machine": os.uname().nodename}
        self.queue.finish(run.claim, result)
        done, known = self.queue.progress()
        outcome = f"{self.queue.sweep.metric} {result['value']:.4f}" if "value" in result else ""
        if result["state"] != "complete":
            outcome = f"{result['state']}: {result['reason']}"
        print(f"[{done}/{known}] {run.label}: {outcome} ({time.monotonic() - run.started:.0f} s)", flush=True)


def _without_result(status: int | None) -> dict[str, Any]:
    """What is known of a run that left no result."""
    if status == -signal.SIGTERM:
        return {"state": PREEMPTED, "reason": "asked to end by SIGTERM"}
    if status is not None and status < 0:
        return {"state": "failed", "reason": f"killed by {signal.Signals(-status).name}"}
    return {"state": "failed", "reason": f"its process ended with status {status} and left no result"}


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM end a sweep as Ctrl-C does, with what belongs to its end."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def checked(context: ForkServerContext, check: Check, configs: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Check configurations, in a process that has imported what it takes; what the hardware decides for the first.

    Args:
        configs: with the name of each.

    Raises:
        InputError: naming what is wrong, and with which.
    """
    ours, its = context.Pipe()
    process = context.Process(target=_check_all, args=(check, configs, Path.cwd(), its))
    process.start()
    its.close()
    try:
        decided, error = ours.recv()
    except EOFError:
        decided, error = {}, "checking the configurations failed: see above"
    process.join()
    if error:
        raise InputError(error)
    return decided


def _check_all(check: Check, configs: list[tuple[str, dict[str, Any]]], directory: Path, parent: Connection) -> None:
    os.chdir(directory)
    decided = []
    for label, config in configs:
        try:
            decided.append(check(config))
        except InputError as error:
            parent.send(({}, f"{label}: {error}"))
            return
    parent.send((decided[0], ""))
