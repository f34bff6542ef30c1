"""Runs that train nothing, and a worker on a study, for processes of their own: what they import must have a name."""

import os
import signal
import sys
import time
from multiprocessing import parent_process
from pathlib import Path

import yaml
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from src.errors import Diverged, Preempted
from src.extras.sweep.definition import Sweep
from src.extras.sweep.queue import Queue, run_of
from src.extras.sweep.study import find_study, make_study, open_storage


def sweep(**settings) -> Sweep:
    """A sweep over two numbers."""
    return Sweep(**{"parameters": {"a": [1, 2, 3], "b": [10, 20]}, "base": ["base.yaml"], "seeds": [0, 1], **settings})


def opened(folder: Path, made: Sweep, config: dict | None = None) -> Queue:
    """A worker's own view of a study."""
    folder.mkdir(exist_ok=True)
    storage = open_storage(folder)
    study = find_study(storage, folder.name) or make_study(storage, folder.name, made, config or {}, {})
    return Queue(made, study, storage, folder / ".processes")


def work(folder: Path, log: Path, die_at: int | None) -> None:
    """Take and finish runs until all are done, writing each down; or die with a run in hand."""
    queue = opened(folder, sweep())
    count = 0
    while not queue.is_done():
        claim = queue.claim()
        if claim is None:
            continue
        if count == die_at:
            os._exit(1)
        with log.open("a") as file:
            file.write(f"{run_of(claim).cell} {run_of(claim).seed}\n")
        queue.finish(claim, {"state": "complete", "value": float(run_of(claim).cell)})
        count += 1


def fit(arguments, callbacks) -> None:
    """Reach the learning rate as the loss; but fail in a way of its own for some."""
    config = yaml.safe_load(Path(arguments[2]).read_text())
    (recorder,) = callbacks
    rate = config["model"]["init_args"]["optimizer"]["init_args"]["lr"]
    recorder.curve.append((1, rate))
    if rate == 2:
        raise RuntimeError("out of luck")
    if rate == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if rate == 4:
        sys.exit(0)
    if rate == 5:
        raise Diverged("the loss is nan at step 7")
    if rate in (6, 7) and len(list(Path(arguments[2]).parents[1].glob(f"*lr={rate}*"))) == 1:  # the first time only
        if rate == 6:
            raise Preempted("asked to end at step 1")
        os.kill(os.getpid(), signal.SIGTERM)
    if rate == 9 and len(list(Path(arguments[2]).parents[1].glob("*lr=9*"))) == 1:
        os.kill(parent_process().pid, signal.SIGTERM)
        time.sleep(600)
    recorder.record["batches"] = "all"


def check(config):
    """Nothing is wrong with it."""
    return {}


def finished(folder: Path, made: Sweep, record) -> None:
    """Write a study whose runs are all complete: ``record`` says what is recorded of a cell and a seed."""
    folder.mkdir(exist_ok=True)
    study = make_study(open_storage(folder), folder.name, made, {}, {})
    labels = {axis.name: CategoricalDistribution([choice.label for choice in axis.choices]) for axis in made.axes}
    for seed in made.seeds:
        for number, cell in enumerate(made.grid()):
            recorded = record(cell, seed)
            value = recorded["value"]
            attributes = {"cell": number, "seed": seed, "is_tuning": False, "state": "complete", **recorded}
            attributes.setdefault("curve", [(1, 2 * value), (2, value)])
            study.add_trial(create_trial(value=value, params=cell, distributions=labels, user_attrs=attributes))
