"""The folders of runs: a new one, and the checkpoint that an interrupted one goes on from."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning.fabric.utilities.rank_zero import rank_zero_only

from src.checkpoint import check_bytes, read_header
from src.cli.config_overrides import read_config
from src.cli.messages import values_of
from src.errors import InputError


def experiment_folder(logs: Path, experiment: str) -> Path:
    """Return ``logs/experiment``; the name may be of several folders, ``a/b``, and leads out of ``logs`` by none."""
    name = Path(experiment)
    if not name.parts or name.is_absolute() or ".." in name.parts:
        raise InputError(
            f"experiment is {experiment!r}: name a folder within trainer.default_root_dir, which is {logs}"
        )
    return logs / name


def run_folder(logs: Path, experiment: str) -> Path:
    """Make ``logs/experiment/version_N`` with the next free N, and return it.

    Making the folder is what claims it, so that of two runs started together each has its own, and no run ever writes
    into the folder of an older one. Only the first of several processes makes one: the others write nothing, and what
    they need of the path is broadcast to them.
    """
    parent = experiment_folder(logs, experiment)
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        return parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"trainer.default_root_dir {logs} cannot be written: {error.strerror}") from error
    version = max((n for n, _ in _versions(parent)), default=-1) + 1
    while True:
        try:
            (parent / f"version_{version}").mkdir()
            return parent / f"version_{version}"
        except FileExistsError:
            version += 1


@contextmanager
def lock_run(run: Path | None) -> Iterator[None]:
    """Hold the folder of a run, if there is one, so that no other process goes on with the run meanwhile.

    The system releases it however this process ends. Of several processes the first one alone holds it; on a file
    system without locks, none does.
    """
    if run is None or rank_zero_only.rank:  # type: ignore[attr-defined]
        yield
        return
    # a marker of its own, which is its fallback, would outlive a process that is killed
    lock = FileLock(run / ".lock", timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"another process is training {run}: wait for it, or leave out --resume auto") from error
    except OSError:
        pass
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):
                Path(lock.lock_file).unlink(missing_ok=True)  # while it is held: who waits for it opens another one
            lock.release()


def is_to_resume(arguments: list[str]) -> bool:
    """Whether a command line says ``--resume auto``, or is that of a job which SLURM has put back into its queue."""
    values, named = values_of(("--resume",), arguments), values_of(("--ckpt_path",), arguments)
    if values and values[-1] != "auto":
        raise InputError(f"--resume {values[-1]}: it can be auto; a checkpoint is named by --ckpt_path")
    if values and named:
        raise InputError("--resume auto looks for a checkpoint, and --ckpt_path names one: leave one of them out")
    # of the job's own command: a sweep in such a job begins each of its runs as it is
    requeued = sys.argv[1:2] == ["fit"] and int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0
    return bool(values) or (not named and requeued)


def newest_checkpoint(arguments: list[str]) -> Path | None:
    """Find the newest complete checkpoint of the newest run of a command line's experiment that has one.

    A damaged one that is passed over is named in a warning. The first of several processes alone reads the weights for
    that: all of them load what it has chosen.
    """
    folder = Path(str(_setting("trainer.default_root_dir", "logs", arguments))).expanduser()
    experiment = experiment_folder(folder, str(_setting("experiment", "run", arguments)))
    for _, run in sorted(_versions(experiment), reverse=True):
        for path in _candidates(run / "checkpoints"):
            try:
                header = read_header(path)
                if "loops" in header and not rank_zero_only.rank:  # type: ignore[attr-defined]
                    check_bytes(path)
            except InputError as error:
                rank_zero_only(print)(f"warning: passed over: {error}")
                continue
            if "loops" in header:
                rank_zero_only(print)(f"resuming from {path}, step {header['global_step']}")
                return path
    rank_zero_only(print)(f"{experiment} has no checkpoint to resume from: starting a new run")
    return None


def _versions(experiment: Path) -> Iterator[tuple[int, Path]]:
    for path in experiment.glob("version_*"):
        if match := re.fullmatch(r"version_(\d+)", path.name):
            yield int(match[1]), path


def _candidates(folder: Path) -> list[Path]:
    """List checkpoints, the newest first; also shards that were complete when their folder was about to be renamed."""

    def written(path: Path) -> tuple[int, bool]:
        files = path.rglob("*") if path.is_dir() else [path]
        # of two that were written in one moment, the one that says so
        return max((file.stat().st_mtime_ns for file in files), default=0), path.name == "last.ckpt"

    found = [*filter(Path.exists, folder.glob("*.ckpt")), *(path for path in folder.glob("*.ckpt.*") if path.is_dir())]
    return sorted(found, key=written, reverse=True)


def _setting(key: str, default: str, arguments: list[str]) -> Any:
    """Look up a setting in the configuration files, and on the command line, which overrides them."""
    value: Any = default
    for config in values_of(("--config", "-c"), arguments):
        found: Any = read_config(config)
        for name in key.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        value = value if found is None else found
    return [value, *values_of((f"--{key}",), arguments)][-1]
