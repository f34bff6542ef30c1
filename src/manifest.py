"""A record of what a run was made with, to start it again by and to say what differs."""

import hashlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from src.hardware import cpu_name

MANIFEST = "manifest.json"  # in the run's folder
# what a difference of is expected: it is no reason for another result
NO_DIFFERENCE = ("started", "command", "resumed", "checkpoint")


def manifest(command: list[str], seed: int, data_fingerprint: str, tokenizer: str) -> dict[str, Any]:
    """Make the record of a run that starts now.

    Args:
        command: its command line.
        seed: of everything that is random.
        data_fingerprint: of the prepared data.
        tokenizer: the text of its tokenizer.json.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "seed": seed,
        "data_fingerprint": data_fingerprint,
        "tokenizer_sha256": hashlib.sha256(tokenizer.encode()).hexdigest(),
        "git": git_state(Path(__file__).parents[1]),
        "python": platform.python_version(),
        "hardware": hardware(),
        "packages": dict(sorted({(d.metadata["Name"] or "").lower(): d.version for d in distributions()}.items())),
        "resumed": [],
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Read the commit, what differs from it and which files it does not know; nothing outside a repository."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=True)
        return done.stdout.decode("utf-8", errors="replace")

    try:
        return {
            "commit": git("rev-parse", "HEAD").strip(),
            "diff": git("diff", "HEAD", "--no-color"),
            "untracked": git("ls-files", "--others", "--exclude-standard").splitlines(),
        }
    except (OSError, subprocess.CalledProcessError):
        return None


def hardware() -> dict[str, Any]:
    """Record what results may depend on: the CPU and its cores, the GPUs, and how many threads compute."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": cpu_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "cuda": torch.version.cuda,
    }


def differences(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """List what of two records differs, a line each."""
    lines = []
    for key in (key for key in now if key not in NO_DIFFERENCE):
        old, new = recorded.get(key), now[key]
        if isinstance(old, dict) and isinstance(new, dict):
            for name in sorted({*old, *new}):
                if old.get(name) != new.get(name):
                    lines.append(f"{key}.{name}: {_short(old.get(name))}, now {_short(new.get(name))}")
        elif old != new:
            lines.append(f"{key}: {_short(old)}, now {_short(new)}")
    return lines


def _short(value: Any) -> str:
    if value in (None, "", []):
        return "none"
    text = str(value)
    return text if len(text) <= 100 and "\n" not in text else f"{len(text.splitlines())} lines"
