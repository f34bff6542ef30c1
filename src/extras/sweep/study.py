"""The database of a sweep: an Optuna study, which any number of processes and machines work on together."""

import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
import sqlalchemy.event
import sqlalchemy.exc
from filelock import FileLock
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, OptunaError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection

from src.errors import InputError
from src.extras.sweep.definition import Sweep, sweep_of

HEARTBEAT_SECONDS = 20  # between two heartbeats of a run
LOST_SECONDS = 120  # without one: the run's machine is gone
CREATION_SECONDS = 10  # that another process may take to create a study
GROWING = ("seeds", "cells")  # what a study may be given more of
# how what was run is looked at
JUDGING = ("baseline", "difference", "pilot", "target", "judged_by")

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.simplefilter("ignore", ExperimentalWarning)  # so Optuna calls its heartbeats since 2.9


def open_storage(folder: Path, url: str | None = None) -> RDBStorage:
    """Open the database of a study, in its folder, or by a URL as SQLAlchemy writes them."""
    url = url or f"sqlite:///{folder / 'study.db'}"
    is_sqlite = url.startswith("sqlite")
    options = {"connect_args": {"timeout": 60}} if is_sqlite else {"pool_pre_ping": True}
    try:
        with FileLock(folder / ".storage.lock"):  # two processes that create the tables of SQLite at once would fail
            storage = RDBStorage(url, options, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=LOST_SECONDS)
    except (sqlalchemy.exc.SQLAlchemyError, OptunaError, ImportError, RuntimeError) as error:
        shown = url if "@" not in url else "...@" + url.rpartition("@")[2]  # without its password
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise InputError(f"the storage {shown} cannot be used: {reason}") from error
    if is_sqlite:
        _begin_immediate(storage.engine)
    return storage


def _begin_immediate(engine: sqlalchemy.Engine) -> None:
    """Begin each transaction of SQLite with its lock.

    SQLite has no locks of rows. Where two processes may both read that a trial waits before either writes that it
    runs, both run it: with Optuna's own transactions four processes took 76 of 60 trials.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def no_implicit_begin(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # the connections from before


def find_study(storage: RDBStorage, name: str) -> optuna.Study | None:
    """Load the study of a name, which knows the sweep that it was created from; None where there is none."""
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return None
    for _ in range(CREATION_SECONDS):
        if "sweep" in study.user_attrs:
            return study
        time.sleep(1)  # another process is creating it
    raise InputError(
        f"the study {name} was not made by `sweep`, or not to its end: delete it, or name another by --study"
    )


def make_study(
    storage: RDBStorage, name: str, sweep: Sweep, config: dict[str, Any], decided: dict[str, Any]
) -> optuna.Study:
    """Create a study, or load the one that another process has created meanwhile.

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
    for key, value in (("config", config), ("decided", decided), ("sweep", asdict(sweep))):
        study.set_user_attr(key, value)
    return study


def sweep_of_study(study: optuna.Study) -> Sweep:
    """Return the sweep that a study was created from."""
    return sweep_of(study.user_attrs["sweep"], study.study_name)


def resume_study(study: optuna.Study, sweep: Sweep, config: dict[str, Any]) -> None:
    """Go on with a study, which may be given more seeds and cells, or be judged otherwise; refuse what else differs."""
    old, new = asdict(sweep_of_study(study)), asdict(sweep)
    another = f"the study {study.study_name} was made from another sweep"
    if set(old["seeds"]) - set(new["seeds"]):
        raise InputError(f"{another}: seeds was {old['seeds']} and is {new['seeds']}, which is less")
    if (old["cells"] or 0) > (new["cells"] or 0):
        raise InputError(f"{another}: cells was {old['cells']} and is {new['cells']}, which is less")
    fixed = [{k: v for k, v in made.items() if k not in (*GROWING, *JUDGING, "base")} for made in (old, new)]
    difference = _first_difference({"config": study.user_attrs["config"], **fixed[0]}, {"config": config, **fixed[1]})
    if difference:
        raise InputError(f"{another}: {difference}; give this one a folder of its own by --study")
    if old != new:
        study.set_user_attr("sweep", new)


def _first_difference(old: Any, new: Any, key: str = "") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        names = {**old, **new}
        found = (_first_difference(old.get(name), new.get(name), f"{key}.{name}" if key else name) for name in names)
        return next(filter(None, found), "")
    return "" if old == new else f"{key} was {old} and is {new}"
