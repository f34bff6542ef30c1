"""The database of a sweep: an Optuna study, which any number of processes and machines work on together."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
import sqlalchemy.event
import sqlalchemy.exc
from filelock import FileLock
from optuna.exceptions import DuplicatedStudyError, OptunaError
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.storages import RDBStorage
from optuna.study import StudyDirection

from src.errors import InputError
from src.extras.sweep.definition import Sweep, sweep_of

PRUNERS: dict[str | None, Callable[[], BasePruner]] = {
    None: NopPruner,
    "median": lambda: MedianPruner(n_startup_trials=4),
    "halving": lambda: SuccessiveHalvingPruner(reduction_factor=3),
}
MAKING_SECONDS = 10  # that the making of a study may take at most
GROWING = ("seeds", "cells")  # what a study may be given more of

optuna.logging.set_verbosity(optuna.logging.ERROR)


def default_storage(folder: Path) -> str:
    """The URL of the database that lies in a study's own folder."""
    return f"sqlite:///{folder / 'study.db'}"


def open_storage(url: str, folder: Path) -> RDBStorage:
    """A database by its URL, as SQLAlchemy writes them.

    Raises:
        InputError: it cannot be reached.
    """
    try:
        if not url.startswith("sqlite"):
            return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        with FileLock(folder / ".storage.lock"):  # two processes that make the tables at once would fail
            storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
    except (sqlalchemy.exc.SQLAlchemyError, OptunaError, ImportError, RuntimeError) as error:
        shown = url if "@" not in url else "...@" + url.rpartition("@")[2]  # without its password
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise InputError(f"the storage {shown} cannot be used: {reason}") from error
    _one_transaction_at_a_time(storage.engine)
    return storage


def _one_transaction_at_a_time(engine: sqlalchemy.Engine) -> None:
    """Begin each transaction of SQLite with its lock.

    SQLite knows no lock of a row. Where two processes may both read that a trial waits before either writes that it
    runs, both run it: four processes took 76 of 60 trials.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def begin_nothing(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # the connections from before


def find_study(storage: RDBStorage, name: str) -> optuna.Study | None:
    """The study of a name, or nothing. It knows the sweep that it was made from."""
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return None
    for _ in range(MAKING_SECONDS):
        if "sweep" in study.user_attrs:
            return study
        time.sleep(1)  # another process is making it
    raise InputError(
        f"the study {name} was not made by `sweep`, or not to its end: delete it, or name another by --study"
    )


def make_study(
    storage: RDBStorage, name: str, sweep: Sweep, config: dict[str, Any], decided: dict[str, Any]
) -> optuna.Study:
    """A new study, or the one that another process has made meanwhile.

    Args:
        config: what the sweep's settings lie over.
        decided: settings that the hardware decides, which must be the same in all runs, whatever they run on.
    """
    direction = StudyDirection.MINIMIZE if sweep.mode == "min" else StudyDirection.MAXIMIZE
    try:
        study = optuna.create_study(study_name=name, storage=storage, direction=direction)
    except DuplicatedStudyError:
        found = find_study(storage, name)
        assert found is not None
        return found
    for key, value in (("config", config), ("decided", decided), ("sweep", sweep.as_dict())):
        study.set_user_attr(key, value)
    return study


def sweep_of_study(study: optuna.Study) -> Sweep:
    """The sweep that a study was made from."""
    return sweep_of(study.user_attrs["sweep"], study.study_name)


def take_up(study: optuna.Study, sweep: Sweep, config: dict[str, Any]) -> None:
    """Go on with a study, which may be given more seeds and more cells; anything else must be as it was.

    Raises:
        InputError: naming the first thing that is not.
    """
    made = sweep_of_study(study).as_dict()
    now = sweep.as_dict()
    for what in GROWING:
        less = set(made[what]) - set(now[what]) if what == "seeds" else (made[what] or 0) > (now[what] or 0)
        if less:
            raise InputError(f"{_another(study)}: {what} was {made[what]} and is {now[what]}, which is less")
    stored = {"config": study.user_attrs["config"], **{k: v for k, v in made.items() if k not in (*GROWING, "base")}}
    wanted = {"config": config, **{k: v for k, v in now.items() if k not in (*GROWING, "base")}}
    different = _first_difference(stored, wanted)
    if different is not None:
        key, old, new = different
        raise InputError(
            f"{_another(study)}: {key} was {old} and is {new}; give this one a folder of its own by --study"
        )
    if made != now:
        study.set_user_attr("sweep", now)


def with_pruner(study: optuna.Study, sweep: Sweep) -> optuna.Study:
    """The study with the pruner that the sweep asks for."""
    study.pruner = PRUNERS[sweep.pruner]()
    return study


def _another(study: optuna.Study) -> str:
    return f"the study {study.study_name} was made from another sweep"


def _first_difference(old: Any, new: Any, key: str = "") -> tuple[str, Any, Any] | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            found = _first_difference(old.get(name), new.get(name), f"{key}.{name}" if key else name)
            if found is not None:
                return found
        return None
    return None if old == new else (key, old, new)
