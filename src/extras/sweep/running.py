"""A sweep from its definition to its report."""

import multiprocessing
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError

from src.errors import InputError
from src.extras.sweep.configuration import layered, with_settings
from src.extras.sweep.definition import Sweep
from src.extras.sweep.queue import Queue
from src.extras.sweep.scheduling import Scheduler, cell_config
from src.extras.sweep.study import default_storage, find_study, make_study, open_storage, resume_study
from src.extras.sweep.tables import write_report
from src.extras.sweep.trial import Fit

# what a process has imported before runs are forked from it: that takes longer than a short run
PRELOADED = ["src.cli.training", "src.extras.sweep.trial", "tensorboard.summary", "torch.utils.tensorboard"]

# checks a configuration without training; returns the settings that the hardware decides, or raises InputError
Check = Callable[[dict[str, Any]], dict[str, Any]]


def run_sweep(
    sweep: Sweep, folder: Path, storage_url: str | None, jobs: int, threads: int, *, fit: Fit, check: Check
) -> None:
    """Run what is left to run of a sweep, together with the other processes on its study, and write the report.

    Args:
        folder: of the study; its name is the study's.
        storage_url: of the database; None for one in the folder.
        jobs: runs at a time.
        threads: of each.
        fit: trains.
        check: refuses a configuration before anything is trained.
    """
    config = layered([Path(path) for path in sweep.base])
    if (config.get("trainer") or {}).get("devices") is None:  # all would be taken
        config = with_settings(config, {"trainer.devices": 1})
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    try:
        storage = open_storage(storage_url or default_storage(folder), folder)
        study = find_study(storage, folder.name)
        if study is None:
            decided = check_cells(sweep, config, check, context)
            study = make_study(storage, folder.name, sweep, config, decided)
        resume_study(study, sweep, config)  # also one that another process has made meanwhile, of another sweep
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
    finally:
        queue.close()
    print(f"wrote {write_report(study, folder)}")


def check_cells(sweep: Sweep, config: dict[str, Any], check: Check, context: ForkServerContext) -> dict[str, Any]:
    """Check each value of a sweep in a complete configuration; return the settings that the hardware decides."""
    configs = []
    for cell in sweep.probes():
        made = cell_config(sweep, config, cell, sweep.seeds[0])
        devices = made["trainer"]["devices"]
        if devices not in (1, "1") or made["trainer"].get("num_nodes") not in (None, 1):
            raise InputError(
                f"trainer.devices is {devices}: each run of a sweep has one device; run more of them by --jobs"
            )
        configs.append((", ".join(f"{axis.key}={choice.label}" for axis, choice in sweep.chosen(cell)), made))
    print(f"checking {len(configs)} configurations", flush=True)
    decided = []
    with ProcessPoolExecutor(1, context, os.chdir, (Path.cwd(),)) as pool:
        for label, made in configs:
            try:
                decided.append(pool.submit(check, made).result())
            except InputError as error:
                raise InputError(f"{label}: {error}") from error
    return decided[0]
