"""The folder of a run."""

import re
from pathlib import Path

from lightning.fabric.utilities.rank_zero import rank_zero_only

from src.errors import InputError


def run_folder(logs: Path, experiment: str) -> Path:
    """Make ``logs/experiment/version_N`` with the next free N, and return it.

    Making the folder is what claims it, so that of two runs started together each has its own, and no run ever writes
    into the folder of an older one. Only the first of several processes makes one: the others write nothing, and what
    they need of the path is broadcast to them.
    """
    parent = logs / experiment
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        return parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"trainer.default_root_dir {logs} cannot be written: {error.strerror}") from error
    taken = [int(match[1]) for path in parent.iterdir() if (match := re.fullmatch(r"version_(\d+)", path.name))]
    version = max(taken, default=-1) + 1
    while True:
        try:
            (parent / f"version_{version}").mkdir()
            return parent / f"version_{version}"
        except FileExistsError:
            version += 1
