"""The queue of runs of a study.

Which runs there are follows from the sweep and from what is finished. Each has a trial in the study; the one with the
lowest number counts, unless its process died. So processes that fill the queue at the same time do no harm: what they
enqueued twice is never run.
"""

import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import time
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from src.extras.sweep.axes import Axis, Label
from src.extras.sweep.definition import Sweep
from src.extras.sweep.study import HEARTBEAT_SECONDS

SAMPLERS = {"grid": RandomSampler, "random": RandomSampler, "tpe": TPESampler}  # a grid leaves nothing to sample
PRUNERS: dict[str | None, Callable[[], BasePruner]] = {
    None: NopPruner,
    "median": lambda: MedianPruner(n_startup_trials=4),
    "halving": lambda: SuccessiveHalvingPruner(reduction_factor=3),
}
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}  # of a result; all others are failures


@dataclass(frozen=True)
class Run:
    """A cell with a seed: what is trained once."""

    cell: int
    seed: int
    is_tuning: bool = False


def run_of(trial: FrozenTrial) -> Run:
    """Return the run that a trial is for."""
    return Run(*(trial.user_attrs[name] for name in ("cell", "seed", "is_tuning")))


def is_lost(trial: FrozenTrial) -> bool:
    """Whether a trial was given up before its run ended: its process died, or was asked to end."""
    return trial.state == TrialState.FAIL and trial.user_attrs.get("state", "complete") in STATES


def current_trials(trials: Iterable[FrozenTrial]) -> dict[Run, FrozenTrial]:
    """Map each run to the trial that counts: the first one that is not lost."""
    current: dict[Run, FrozenTrial] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if "cell" in trial.user_attrs and not is_lost(trial):
            current.setdefault(run_of(trial), trial)
    return current


def best_tuned(sweep: Sweep, current: dict[Run, FrozenTrial]) -> list[int]:
    """List the cell that did best of each choice, over the seeds for tuning; a choice of failures has none."""
    values: dict[tuple[Label, ...], dict[int, list[float]]] = {}
    for run, trial in current.items():
        if run.is_tuning and trial.state == TrialState.COMPLETE:
            cells = values.setdefault(sweep.group(trial.params), {})
            cells.setdefault(run.cell, []).append(trial.value or 0.0)
    sign = 1 if sweep.mode == "min" else -1
    n_seeds = len(sweep.tuning_seeds)
    scores = [
        [(sign * sum(found), cell) for cell, found in cells.items() if len(found) == n_seeds]
        for cells in values.values()
    ]
    return sorted(min(found)[1] for found in scores if found)


def wanted_runs(sweep: Sweep, current: dict[Run, FrozenTrial]) -> list[Run]:
    """List the runs that are known so far, in the order to do them: all cells with a seed before the next seed."""
    is_tuning = bool(sweep.tuning_seeds)
    known = {run.cell for run, trial in current.items() if trial.params or sweep.sampler == "grid"}
    pruned = {run.cell for run, trial in current.items() if trial.state == TrialState.PRUNED}
    runs = []
    for i, seed in enumerate(sweep.tuning_seeds or sweep.seeds):
        for cell in range(sweep.n_cells()):
            run = Run(cell, seed, is_tuning)
            is_wanted = cell not in pruned and (i == 0 or sweep.sampler == "grid" or cell in known)
            if is_wanted or (run in current and current[run].state != TrialState.WAITING):
                runs.append(run)
    if is_tuning and all(run in current and current[run].state.is_finished() for run in runs):
        cells = best_tuned(sweep, current)
        runs += [Run(cell, seed) for seed in sweep.seeds for cell in cells]
    return runs


class Queue:
    """What is still to run of a study, and what is under way.

    Args:
        sweep: the sweep, with the seeds that are to be run.
        study: its study.
        storage: where the study is kept.
        folder: where each process of this machine holds a lock while it lives.
    """

    def __init__(self, sweep: Sweep, study: optuna.Study, storage: RDBStorage, folder: Path) -> None:
        self.sweep, self.study, self.storage, self.folder = sweep, study, storage, folder
        self.study.pruner = PRUNERS[sweep.pruner]()
        self._study_id = storage.get_study_id_from_name(study.study_name)
        self._grid = sweep.grid() if sweep.sampler == "grid" else []
        self.worker = uuid.uuid4().hex
        folder.mkdir(parents=True, exist_ok=True)
        self._alive = FileLock(self._lock_of(self.worker))
        self._alive.acquire()  # until this process ends, however it ends
        self._claimed: set[int] = set()
        self._last_heartbeat = 0.0

    def _lock_of(self, worker: str) -> Path:
        return self.folder / f"{worker}.lock"

    def close(self) -> None:
        """Leave nothing behind in the folder of locks."""
        self._alive.release()
        self._lock_of(self.worker).unlink(missing_ok=True)

    def trials(self) -> list[FrozenTrial]:
        """Read all trials of the study."""
        return self.storage.get_all_trials(self._study_id, deepcopy=False)

    def claim(self) -> FrozenTrial | None:
        """Take the trial of the next run, which no other process then gets; None where all are taken."""
        for run, trial in self._filled().items():
            if trial.state == TrialState.WAITING:
                trial_id = trial._trial_id
                self.storage.record_heartbeat(trial_id)
                with suppress(UpdateFinishedTrialError):
                    if self.storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                        self._claimed.add(trial_id)
                        self.storage.set_trial_user_attr(trial_id, "worker", self.worker)
                        self._suggest(trial_id, run)
                        return self.storage.get_trial(trial_id)
        return None

    def is_done(self) -> bool:
        """Whether every run is finished, by whichever process."""
        return all(trial.state.is_finished() for trial in self._filled().values())

    def progress(self) -> tuple[int, int]:
        """Count the runs that are finished, and all that are known so far."""
        current = current_trials(self.trials())
        runs = wanted_runs(self.sweep, current)
        return sum(run in current and current[run].state.is_finished() for run in runs), len(runs)

    def _filled(self) -> dict[Run, FrozenTrial]:
        """The trials of all runs in order, once those that have none were given one."""
        self._give_up_lost()
        while True:
            trials = self.trials()
            current = current_trials(trials)
            runs = wanted_runs(self.sweep, current)
            missing = [run for run in runs if run not in current]
            if not missing:
                return {run: current[run] for run in runs}
            for run in missing:
                self._enqueue(run, trials)

    def _enqueue(self, run: Run, trials: list[FrozenTrial]) -> None:
        if self.sweep.sampler == "grid":
            parameters = self._grid[run.cell]
        else:  # a cell that another seed has, or had before its process died, has been chosen already
            chosen = (t.params for t in trials if t.user_attrs.get("cell") == run.cell and t.params)
            parameters = next(chosen, {})
        self.study.enqueue_trial(parameters, user_attrs=asdict(run))

    def _suggest(self, trial_id: int, run: Run) -> None:
        """Choose a cell, unless it was enqueued with its parameters.

        Random ones depend on the cell's number alone, so that a sweep can be done again.
        """
        sampler = SAMPLERS[self.sweep.sampler](seed=run.cell)
        # anew: a study object remembers the trials that it saw first, and TPE would learn from none after them
        study = optuna.load_study(study_name=self.study.study_name, storage=self.storage, sampler=sampler)
        study.get_trials(deepcopy=False)  # it does not know a trial that it has not read
        trial = optuna.Trial(study, trial_id)

        def suggest(axes: tuple[Axis, ...]) -> None:
            label: Label
            for axis in axes:
                if (numbers := axis.range) is None:
                    label = trial.suggest_categorical(axis.name, [choice.label for choice in axis.choices])
                elif numbers.is_integer:
                    label = trial.suggest_int(axis.name, int(numbers.low), int(numbers.high), log=numbers.log)
                else:
                    label = trial.suggest_float(axis.name, numbers.low, numbers.high, log=numbers.log)
                suggest(axis.choice(label).axes)

        suggest(self.sweep.axes)

    def heartbeat(self) -> None:
        """Show the processes on other machines that the runs of this one go on."""
        if time() - self._last_heartbeat >= HEARTBEAT_SECONDS:
            self._last_heartbeat = time()
            for trial_id in self._claimed:
                self.storage.record_heartbeat(trial_id)

    def _give_up_lost(self) -> None:
        """Give up the trials whose machine has no heartbeat, or whose process on this machine is gone."""
        self.heartbeat()  # first: its own must not be taken for lost after the machine has slept
        fail_stale_trials(self.study)
        for trial in self.storage.get_all_trials(self._study_id, deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.user_attrs.get("worker", self.worker)
            if worker != self.worker and self._has_ended(worker):
                self._give_up(trial._trial_id)

    def _has_ended(self, worker: str) -> bool:
        """Whether a process of this machine has ended: its lock is free."""
        if not self._lock_of(worker).exists():  # of another machine
            return False
        try:
            with FileLock(self._lock_of(worker), timeout=0):
                return True
        except Timeout:
            return False

    def _give_up(self, trial_id: int) -> None:
        with suppress(UpdateFinishedTrialError):  # another process was first
            self.storage.set_trial_state_values(trial_id, TrialState.FAIL)

    def release(self, trial: FrozenTrial) -> None:
        """Give back what was taken and will not be finished."""
        self._claimed.discard(trial._trial_id)
        self._give_up(trial._trial_id)

    def report(self, trial: FrozenTrial, step: int, value: float) -> bool:
        """Record a value of the learning curve; return whether the run is to be pruned."""
        live = optuna.Trial(self.study, trial._trial_id)
        live.report(value, step)
        return self.sweep.pruner is not None and live.should_prune()

    def finish(self, trial: FrozenTrial, result: dict[str, Any]) -> None:
        """Record how a run ended; one that was given up by others meanwhile stays so."""
        self._claimed.discard(trial._trial_id)
        state = STATES.get(result["state"], TrialState.FAIL)
        with suppress(UpdateFinishedTrialError):
            for name, value in sorted(result.items(), key=lambda item: item[0] == "state"):  # which is judged, last
                self.storage.set_trial_user_attr(trial._trial_id, name, value)
            values = None if state == TrialState.FAIL else [result["value"]]
            self.storage.set_trial_state_values(trial._trial_id, state, values)
