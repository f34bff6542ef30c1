"""A sweep from its definition to its report, several runs at a time, each in a process of its own."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

import yaml
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial

from src.errors import InputError
from src.extras.sweep.configuration import layered, with_settings
from src.extras.sweep.definition import LADDER, Sweep
from src.extras.sweep.queue import Queue, run_of
from src.extras.sweep.report import write_report
from src.extras.sweep.study import find_study, make_study, open_storage, resume_study
from src.extras.sweep.trial import PREEMPTED, Fit, run_trial
from src.extras.sweep.verdicts import state_power

# what a process has imported before runs are forked from it: that takes longer than a short run
PRELOADED = ["src.cli.training", "src.extras.sweep.trial", "tensorboard.summary", "torch.utils.tensorboard"]

# checks a configuration without training; returns the settings that the hardware decides, or raises InputError
Check = Callable[[dict[str, Any]], dict[str, Any]]
POLL_SECONDS = 1.0  # between two looks at what other processes of the study have done


def run_sweep(
    sweep: Sweep,
    folder: Path,
    storage_url: str | None,
    jobs: int,
    threads: int,
    *,
    fit: Fit,
    check: Check,
    config: dict[str, Any] | None = None,
) -> None:
    """Run what is left to run of a sweep, together with the other processes on its study, and write the report.

    Args:
        folder: of the study; its name is the study's.
        storage_url: of the database; None for one in the folder.
        jobs: runs at a time.
        threads: of each.
        fit: trains.
        check: refuses a configuration before anything is trained.
        config: what the sweep's settings lie over; its base files if None.
    """
    config = layered([Path(path) for path in sweep.base]) if config is None else config
    power = state_power(sweep)
    if (config.get("trainer") or {}).get("devices") is None:  # all would be taken
        config = with_settings(config, {"trainer.devices": 1})
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with _handled(signal.SIGINT, signal.SIG_IGN):  # the sweep itself stops its processes
        ensure_running()
    try:
        storage = open_storage(folder, storage_url)
        study = find_study(storage, folder.name)
        if study is None:
            decided = check_cells(sweep, config, check, context)
            study = make_study(storage, folder.name, sweep, config, decided)
        resume_study(study, sweep, config)  # also one that another process has made meanwhile, of another sweep
        if power:
            print(power, flush=True)
            study.set_user_attr("power", power)
    except InputError:
        if is_new:
            shutil.rmtree(folder)
        raise
    queue = Queue(sweep, study, storage, folder / ".processes")
    try:
        done, known = queue.progress()
        print(f"study {folder}: {done} of {known} runs are done; {jobs} at a time, {threads} threads each", flush=True)
        config = with_settings(config, study.user_attrs["decided"])
        Scheduler(queue, config, folder, context, fit, jobs, threads).run()
    except StorageInternalError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InputError(f"the storage has failed; the same command goes on from here: {reason}") from error
    except KeyboardInterrupt:
        print(f"study {folder} keeps the runs that are done; the same command goes on with the others", flush=True)
        raise
    finally:
        queue.close()
    print(f"wrote {write_report(study, folder)}")


def check_cells(sweep: Sweep, config: dict[str, Any], check: Check, context: ForkServerContext) -> dict[str, Any]:
    """Check each value of a sweep in a complete configuration; return the settings that the hardware decides."""
    configs = []
    for cell in sweep.probes():
        made = sweep.config_of(config, cell, sweep.seeds[0])
        devices = made["trainer"]["devices"]
        if devices not in (1, "1") or made["trainer"].get("num_nodes") not in (None, 1):
            raise InputError(
                f"trainer.devices is {devices}: each run of a sweep has one device; run more of them by --jobs"
            )
        configs.append((", ".join(f"{axis.key}={choice.label}" for axis, choice in sweep.chosen(cell)), made))
    print(f"checking {len(configs)} configurations", flush=True)
    decided = []
    with ProcessPoolExecutor(1, context, _prepare_checks, (Path.cwd(),)) as pool:
        for label, made in configs:
            try:
                decided.append(pool.submit(check, made).result())
            except InputError as error:
                raise InputError(f"{label}: {error}") from error
    return decided[0]


def _prepare_checks(directory: Path) -> None:
    os.chdir(directory)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # for Ctrl-C not to wait for the check at hand


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


@dataclass
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

    queue: Queue
    config: dict[str, Any]
    folder: Path
    context: ForkServerContext
    fit: Fit
    jobs: int
    threads: int
    active: list[ActiveRun] = field(default_factory=list)
    _waits: bool = False

    def run(self) -> None:
        """Run until all is finished, here or elsewhere; on any end before, stop the runs and give them back."""
        try:
            with _handled(signal.SIGTERM, signal.default_int_handler):  # as Ctrl-C, so that its runs are given back
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
            "hparams.keys": [axis.key for axis, _ in sweep.chosen(trial.params) if axis.key != LADDER],
            "hparams.metrics": [sweep.metric],
        }
        config = with_settings(sweep.config_of(self.config, trial.params, seed), settings)
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        slot = min(set(range(self.jobs)) - {run.device_slot for run in self.active})
        ours, its = self.context.Pipe()
        judged = (sweep.metric, sweep.max_tokens)
        arguments = (self.fit, folder.absolute(), *judged, self.threads, slot, Path.cwd(), its)
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
def _handled(number: signal.Signals, handler: Any) -> Iterator[None]:
    """Handle a signal otherwise for a while."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
