"""A sweep from its definition to its report."""

import shutil
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError

from src.errors import InputError
from src.extras.sweep.configuration import layered, value_at, with_settings
from src.extras.sweep.definition import Sweep
from src.extras.sweep.queue import Queue
from src.extras.sweep.report import write_report
from src.extras.sweep.scheduling import Check, Scheduler, cell_config, checked, processes
from src.extras.sweep.study import default_storage, find_study, make_study, open_storage, take_up, with_pruner
from src.extras.sweep.trial import Fit


def run_sweep(
    sweep: Sweep, folder: Path, storage_url: str | None, jobs: int, threads: int, *, fit: Fit, check: Check
) -> None:
    """Run what is left to run of a sweep, together with the other processes on its study, and write the report.

    Args:
        folder: of the study; its name is the study's.
        storage_url: of the database; null for one in the folder.
        jobs: runs at a time.
        threads: of each.
        fit: trains.
        check: refuses a configuration before anything is trained.

    Raises:
        InputError: the study is of another sweep, its storage cannot be reached, or a cell's configuration is bad.
    """
    config = layered([Path(path) for path in sweep.base])
    if value_at(config, "trainer.devices") is None:  # all would be taken
        config = with_settings(config, {"trainer.devices": 1})
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    context = processes(["src.cli.training"], threads)
    try:
        storage = open_storage(storage_url or default_storage(folder), folder)
        study = find_study(storage, folder.name)
        if study is not None:
            take_up(study, sweep, config)
        else:
            probes = [
                (
                    ", ".join(f"{axis.key}={choice.label}" for axis, choice in sweep.chosen(cell)),
                    _checked_device(cell_config(sweep, config, cell, sweep.seeds[0])),
                )
                for cell in sweep.probes()
            ]
            print(f"checking {len(probes)} configurations", flush=True)
            decided = checked(context, check, probes)
            study = make_study(storage, folder.name, sweep, config, decided)
            take_up(study, sweep, config)  # another process may have made it meanwhile, of another sweep
    except InputError:
        if is_new:
            shutil.rmtree(folder)
        raise
    queue = Queue(sweep, with_pruner(study, sweep), storage, folder / ".processes")
    try:
        done, known = queue.progress()
        print(f"study {folder}: {done} of {known} runs are done; {jobs} at a time, {threads} threads each", flush=True)
        settled = with_settings(config, study.user_attrs["decided"])
        Scheduler(queue, settled, folder, context, fit, jobs, threads).run()
    except StorageInternalError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InputError(f"the storage has failed; the same command goes on from here: {reason}") from error
    finally:
        queue.close()
    print(f"wrote {write_report(study, folder)}")


def _checked_device(config: dict[str, Any]) -> dict[str, Any]:
    devices = value_at(config, "trainer.devices")
    if devices not in (1, "1") or value_at(config, "trainer.num_nodes") not in (None, 1):
        raise InputError(
            f"trainer.devices is {devices}: each run of a sweep has one device; run more of them by --jobs"
        )
    return config
