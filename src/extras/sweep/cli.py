"""sweep: run a configuration many times with other values. report: write down what came out."""

import os
from pathlib import Path
from typing import Any, Literal

from src.cli.verb import NonNegativeFloat, Positive
from src.errors import InputError


def sweep(
    config: Path,
    base: tuple[str, ...] | None = None,
    set_: list[str] | None = None,
    seeds: tuple[int, ...] | None = None,
    sampler: Literal["grid", "random", "tpe"] | None = None,
    cells: Positive | None = None,
    pruner: Literal["median", "halving"] | None = None,
    ladder: tuple[int, ...] | None = None,
    pilot: str | None = None,
    difference: NonNegativeFloat | None = None,
    study: Path | None = None,
    storage: str | None = None,
    jobs: Positive = 1,
    threads: Positive | None = None,
) -> None:
    """Run a configuration many times with other values, as far as that is left to do, and write a report.

    Args:
        config: the sweep: see configs/extras/sweep
        base: configurations to vary, in place of the sweep's own
        set_: KEY=VALUE, a dotted key's value in all runs; repeat it
        seeds: in place of the sweep's own
        sampler: in place of the sweep's own
        cells: how many random or tpe choose
        pruner: stop unpromising runs
        ladder: numbers of layers at which to run each cell, three or more
        pilot: the folder of an earlier study, of whose seeds to learn how many a difference needs
        difference: in the metric, the smallest worth knowing
        study: the folder where it goes (logs/sweep/SWEEP-BASE)
        storage: the URL of a database for several machines; a file in the study's folder otherwise
        jobs: runs at a time
        threads: of each run; the CPUs divided by the jobs
    """
    n_cpus = check_jobs(jobs)
    from src.extras.sweep.configuration import read_yaml
    from src.extras.sweep.definition import sweep_of
    from src.extras.sweep.scheduling import run_sweep

    content = read_yaml(config)
    given: dict[str, Any] = {"base": base, "seeds": seeds, "sampler": sampler, "cells": cells, "pruner": pruner}
    given |= {"ladder": ladder, "pilot": pilot, "difference": difference}
    content |= {name: value for name, value in given.items() if value is not None}
    if set_:
        content["set"] = {**(content.get("set") or {}), **settings_of(set_)}
    definition = sweep_of(content, str(config))
    name = f"{config.stem}-{Path(definition.base[0]).stem}" + ("-ladder" if definition.ladder else "")
    folder = study or Path("logs/sweep", name)
    run_sweep(definition, folder, storage, jobs, threads or max(1, n_cpus // jobs), fit=fit, check=check)


def report(study: Path, storage: str | None = None) -> None:
    """Write the tables and plots of a study into its folder.

    Args:
        study: the folder of a sweep
        storage: the URL of the database, where `sweep` was given one
    """
    from src.extras.sweep.report import write_report
    from src.extras.sweep.study import find_study, open_storage

    if storage is None and not (study / "study.db").is_file():
        raise InputError(f"there is no study in {study}: run a sweep, or name its database by --storage")
    study.mkdir(parents=True, exist_ok=True)
    found = find_study(open_storage(study, storage), study.name)
    if found is None:
        raise InputError(f"the database has no study {study.name!r}")
    print(f"wrote {write_report(found, study)}")


def check_jobs(jobs: int) -> int:
    """Refuse more runs at a time than there are CPUs; return the number of those."""
    n_cpus = os.cpu_count() or 1
    if jobs > n_cpus:
        raise InputError(f"--jobs {jobs} is more than this machine's {n_cpus} CPUs")
    return n_cpus


def settings_of(given: list[str] | None) -> dict[str, Any]:
    """Read the values of ``--set``."""
    from src.extras.sweep.configuration import read_value

    settings = {}
    for setting in given or []:
        key, equals, text = setting.partition("=")
        if not key or not equals:
            raise InputError(f"--set {setting!r} is not of the form KEY=VALUE")
        settings[key] = read_value(text)
    return settings


def fit(arguments: list[str], callbacks: list[Any]) -> None:
    """Train, in a run's own process."""
    from src.cli.training import main  # imported by the process that the runs are forked from, and not by this one

    main(arguments, callbacks)


def check(config: dict[str, Any]) -> dict[str, Any]:
    """Check a configuration, in a process of its own."""
    from src.cli.check_fit import check_fit

    return check_fit(config)
