"""The folder of a run."""

import re
from pathlib import Path


def claim_run(logs: Path, experiment: str) -> Path:
    """Make ``logs/experiment/version_N`` with the next free N, and return it.

    Making the folder is what claims it, so that of two runs started together each has its own, and no run ever writes
    into the folder of an older one.
    """
    parent = logs / experiment
    parent.mkdir(parents=True, exist_ok=True)
    taken = [int(match[1]) for path in parent.iterdir() if (match := re.fullmatch(r"version_(\d+)", path.name))]
    version = max(taken, default=-1) + 1
    while True:
        try:
            (parent / f"version_{version}").mkdir()
            return parent / f"version_{version}"
        except FileExistsError:
            version += 1
