"""The queue of runs of a study.

A *slot* is a cell with a seed: what is to be run once. Which slots there are follows from the sweep and from what is
finished. Each has a trial in the study; the one with the lowest number counts, unless its process died. So processes
that fill the queue at the same time do no harm: what they added twice is never run.
"""

import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from src.extras.sweep.definition import Axis, Parameters, Sweep

HEARTBEAT_SECONDS = 20  # between two signs of life of a run
LOST_SECONDS = 120  # without one, as seen from here: the run's machine is gone


@dataclass(frozen=True)
class Slot:
    """A cell with a seed."""

    cell: int
    seed: int
    is_tuning: bool = False


def slot_of(trial: FrozenTrial) -> Slot:
    """The slot that a trial is for."""
    return Slot(*(trial.user_attrs[name] for name in ("cell", "seed", "is_tuning")))


def current_trials(trials: Iterable[FrozenTrial]) -> dict[Slot, FrozenTrial]:
    """The trial that counts of each slot: the first one, unless its process died."""
    current: dict[Slot, FrozenTrial] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if "cell" in trial.user_attrs and not trial.user_attrs.get("lost"):
            current.setdefault(slot_of(trial), trial)
    return current


def best_tuned(sweep: Sweep, current: dict[Slot, FrozenTrial]) -> dict[tuple[Any, ...], int]:
    """The cell that did best of each group, over the seeds for tuning; a group of failures has none."""
    values: dict[int, list[float]] = {}
    for slot, trial in current.items():
        if slot.is_tuning and trial.state == TrialState.COMPLETE:
            values.setdefault(slot.cell, []).append(trial.value or 0.0)
    sign = 1 if sweep.mode == "min" else -1
    best: dict[tuple[Any, ...], tuple[float, int]] = {}
    for slot, trial in current.items():
        found = values.get(slot.cell, [])
        if len(found) == len(sweep.tuning_seeds):
            score, group = (sign * sum(found), slot.cell), sweep.group(trial.params)
            best[group] = min(best.get(group, score), score)
    return {group: cell for group, (_, cell) in best.items()}


def wanted_slots(sweep: Sweep, current: dict[Slot, FrozenTrial]) -> list[Slot]:
    """The slots that are known so far, in the order to run them: all cells with a seed before the next seed."""
    is_tuning = bool(sweep.tuning_seeds)
    first_seeds = sweep.tuning_seeds or sweep.seeds
    known = {slot.cell for slot, trial in current.items() if trial.params or sweep.sampler == "grid"}
    unpromising = {slot.cell for slot, trial in current.items() if trial.state == TrialState.PRUNED}
    slots = []
    for i, seed in enumerate(first_seeds):
        for cell in range(sweep.n_cells()):
            slot = Slot(cell, seed, is_tuning)
            to_run = cell not in unpromising and (i == 0 or sweep.sampler == "grid" or cell in known)
            if to_run or (slot in current and current[slot].state != TrialState.WAITING):
                slots.append(slot)
    if is_tuning and all(slot in current and current[slot].state.is_finished() for slot in slots):
        cells = sorted(best_tuned(sweep, current).values())
        slots += [Slot(cell, seed) for seed in sweep.seeds for cell in cells]
    return slots


@dataclass(frozen=True)
class Claim:
    """A trial that this process has taken, and must finish."""

    trial_id: int
    number: int
    slot: Slot
    parameters: Parameters


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
        self._study_id = storage.get_study_id_from_name(study.study_name)
        self._grid = sweep.grid() if sweep.sampler == "grid" else []
        self.worker = uuid.uuid4().hex
        folder.mkdir(parents=True, exist_ok=True)
        self._alive = FileLock(self._lock_of(self.worker))
        self._alive.acquire()  # until this process ends, however it ends
        self._signs: dict[int, tuple[Any, float]] = {}  # trial -> its last sign of life, and when that was seen

    def _lock_of(self, worker: str) -> Path:
        return self.folder / f"{worker}.lock"

    def close(self) -> None:
        """Leave nothing behind in the folder of locks."""
        self._alive.release()
        self._lock_of(self.worker).unlink(missing_ok=True)

    def trials(self) -> list[FrozenTrial]:
        """All trials of the study."""
        return self.storage.get_all_trials(self._study_id, deepcopy=False)

    # ---- taking

    def claim(self) -> Claim | None:
        """Take the next slot that waits, or none where all are taken. No other process gets it."""
        for slot, trial in self._filled().items():
            if trial.state == TrialState.WAITING and self._take(trial):
                self.storage.set_trial_user_attr(trial._trial_id, "worker", self.worker)
                parameters = dict(trial.params) or self._sample(trial, slot)
                return Claim(trial._trial_id, trial.number, slot, parameters)
        return None

    def is_done(self) -> bool:
        """Whether every slot is finished, by whichever process."""
        return all(trial.state.is_finished() for trial in self._filled().values())

    def progress(self) -> tuple[int, int]:
        """Slots that are finished, and all slots that are known so far."""
        current = current_trials(self.trials())
        slots = wanted_slots(self.sweep, current)
        return sum(slot in current and current[slot].state.is_finished() for slot in slots), len(slots)

    def _filled(self) -> dict[Slot, FrozenTrial]:
        """The trials of all slots in order, once those that have none were given one."""
        trials = self.trials()
        lost = [trial for trial in trials if self._is_lost(trial)]
        for trial in lost:
            self._release(trial)
        if lost:
            trials = self.trials()
        current = current_trials(trials)
        slots = wanted_slots(self.sweep, current)
        missing = [slot for slot in slots if slot not in current]
        for slot in missing:
            self._add(slot, trials)
        if missing:
            current = current_trials(self.trials())
        return {slot: current[slot] for slot in slots}

    def _add(self, slot: Slot, trials: list[FrozenTrial]) -> None:
        if self.sweep.sampler == "grid":
            parameters = self._grid[slot.cell]
        else:  # a cell that another seed has, or had before its process died, has been chosen already
            chosen = [t.params for t in trials if t.user_attrs.get("cell") == slot.cell and t.params]
            parameters = chosen[0] if chosen else {}
        distributions = (
            {axis.name: self._distribution(axis) for axis, _ in self.sweep.chosen(parameters)} if parameters else {}
        )
        waiting = create_trial(
            state=TrialState.WAITING, params=parameters, distributions=distributions, user_attrs=asdict(slot)
        )
        self.study.add_trial(waiting)

    def _take(self, trial: FrozenTrial) -> bool:
        try:
            return self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False

    # ---- processes that died

    def _is_lost(self, trial: FrozenTrial) -> bool:
        """Whether the process of a running trial is gone: its lock is free, or there was no sign of it for long."""
        worker = trial.user_attrs.get("worker")
        if trial.state != TrialState.RUNNING or worker == self.worker:
            return False
        if worker is not None and self._lock_of(worker).exists():
            try:
                with FileLock(self._lock_of(worker), timeout=0):
                    return True
            except Timeout:
                return False
        sign, now = trial.user_attrs.get("heartbeat"), monotonic()
        if self._signs.get(trial.number, (None, 0.0))[0] != (worker, sign):
            self._signs[trial.number] = ((worker, sign), now)
        return now - self._signs[trial.number][1] > LOST_SECONDS

    def _release(self, trial: FrozenTrial) -> bool:
        """Give up a trial, so that its slot is free; false where another process was first."""
        try:
            self.storage.set_trial_user_attr(trial._trial_id, "lost", True)
            self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False
        return True

    def release(self, claim: Claim) -> None:
        """Give back what was taken and will not be finished."""
        self._release(self.storage.get_trial(claim.trial_id))

    # ---- while it runs, and at its end

    def heartbeat(self, claim: Claim, count: int) -> None:
        """A sign of life, for the processes on other machines."""
        self._set(claim, "heartbeat", count)

    def report(self, claim: Claim, step: int, value: float) -> bool:
        """Keep a value of the learning curve; whether the run is unpromising and should stop."""
        trial = optuna.Trial(self.study, claim.trial_id)
        trial.report(value, step)
        return self.sweep.pruner is not None and trial.should_prune()

    def finish(self, claim: Claim, result: dict[str, Any]) -> None:
        """Record how a run ended; one that was given up by others meanwhile stays so."""
        state = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}.get(result["state"], TrialState.FAIL)
        for name, value in result.items():
            self._set(claim, name, value)
        try:
            values = None if state == TrialState.FAIL else [result["value"]]
            self.storage.set_trial_state_values(claim.trial_id, state, values)
        except UpdateFinishedTrialError:
            return

    def _set(self, claim: Claim, name: str, value: Any) -> None:
        try:
            self.storage.set_trial_user_attr(claim.trial_id, name, value)
        except UpdateFinishedTrialError:
            return

    # ---- choosing

    def _sample(self, trial: FrozenTrial, slot: Slot) -> Parameters:
        """Choose a cell. Random ones depend on the cell's number alone, so that a sweep can be done again."""
        samplers: dict[str, type[BaseSampler]] = {"random": RandomSampler, "tpe": TPESampler}
        sampler = samplers[self.sweep.sampler](seed=slot.cell)  # type: ignore[call-arg]
        # anew: a study object remembers the trials that it saw first, and TPE would learn from none after them
        study = optuna.load_study(study_name=self.study.study_name, storage=self.storage, sampler=sampler)
        study.get_trials(deepcopy=False)  # it does not know a trial that it has not read
        asked = optuna.Trial(study, trial._trial_id)

        def below(axes: tuple[Axis, ...]) -> Parameters:
            parameters: Parameters = {}
            for axis in axes:
                parameters[axis.name] = label = asked._suggest(axis.name, self._distribution(axis))
                parameters |= below(axis.choice(label).axes)
            return parameters

        return below(self.sweep.axes)

    @staticmethod
    def _distribution(axis: Axis) -> BaseDistribution:
        if axis.range is None:
            return CategoricalDistribution([choice.label for choice in axis.choices])
        kind = IntDistribution if axis.range.is_integer else FloatDistribution
        return kind(axis.range.low, axis.range.high, log=axis.range.log)  # type: ignore[arg-type]
