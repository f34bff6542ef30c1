"""Which checkpoint a run goes on from."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric.utilities.rank_zero import rank_zero_only

from src.checkpoint import read_header
from src.cli.messages import values_of
from src.errors import InputError


def requested(arguments: list[str]) -> bool:
    """Whether a command line says ``--resume auto``, or is that of a job which SLURM has put back into its queue.

    Raises:
        InputError: it says something else, or names a checkpoint as well.
    """
    values = values_of(("--resume",), arguments)
    if values and values[-1] != "auto":
        raise InputError(f"--resume {values[-1]}: it can be auto; a checkpoint is named by --ckpt_path")
    named = values_of(("--ckpt_path",), arguments)
    if values and named:
        raise InputError("--resume auto looks for a checkpoint, and --ckpt_path names one: leave one of them out")
    # of the job's own command: a sweep in such a job begins each of its runs as it is
    put_back = sys.argv[1:2] == ["fit"] and int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0
    return bool(values) or (not named and put_back)


def check_steps(done: int, max_steps: int, path: str) -> None:
    """Refuse to go on from a checkpoint to fewer steps than it has done; -1 is no limit.

    Raises:
        InputError: naming both.
    """
    if 0 <= max_steps < done:
        raise InputError(
            f"trainer.max_steps is {max_steps}, and {path} has done {done} steps: ask for more, or start a run from "
            f"its weights by --model.pretrained {path}"
        )


def newest_checkpoint(arguments: list[str]) -> Path | None:
    """The newest whole checkpoint of the newest run of a command line's experiment that has one.

    A damaged one that is passed over is named in a warning.
    """
    folder = Path(str(_setting("trainer.default_root_dir", "logs", arguments))).expanduser()
    experiment = folder / str(_setting("experiment", "run", arguments))
    runs = [(int(m[1]), path) for path in experiment.glob("*") if (m := re.fullmatch(r"version_(\d+)", path.name))]
    for _, run in sorted(runs, reverse=True):
        for path in _candidates(run / "checkpoints"):
            try:
                header = read_header(path)
            except InputError as error:
                rank_zero_only(print)(f"warning: passed over: {error}")
                continue
            if "loops" in header:
                rank_zero_only(print)(f"resuming from {path}, step {header['global_step']}")
                return path
    rank_zero_only(print)(f"{experiment} has no checkpoint to resume from: starting a new run")
    return None


def _candidates(folder: Path) -> list[Path]:
    """Checkpoints, the newest first; shards that were whole when their folder was about to get its name among them."""
    found = [path for path in folder.glob("*.ckpt") if path.is_file() or path.is_dir()]
    found += [path for path in folder.glob("*.ckpt.*") if path.is_dir()]
    # of two that were written in one moment, the one that says so
    return sorted(found, key=lambda path: (_time(path), path.name == "last.ckpt"), reverse=True)


def _time(path: Path) -> int:
    return (
        max((file.stat().st_mtime_ns for file in path.rglob("*")), default=0)
        if path.is_dir()
        else path.stat().st_mtime_ns
    )


def _setting(key: str, default: str, arguments: list[str]) -> Any:
    """A setting as the configuration files have it, and the command line over them."""
    value: Any = default
    for config in values_of(("--config", "-c"), arguments):
        try:
            layer = yaml.safe_load(Path(config).read_text(encoding="utf-8") if "\n" not in config else config)
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue  # the parser complains of it
        for name in key.split("."):
            layer = layer.get(name) if isinstance(layer, dict) else None
        value = value if layer is None else layer
    return [value, *values_of((f"--{key}",), arguments)][-1]
