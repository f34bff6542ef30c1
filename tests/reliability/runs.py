"""Small runs of each task with all that could make a resumed one differ, and what two of them have in common."""

import csv
from pathlib import Path
from typing import Any

import torch
import yaml

from src.distributed.shards import read_shards
from tests.distributed.jobs import write_config

STEPS = 12
KINDS = ("gpt", "bert", "transformer")


def config(kind: str, root: Path, **changes: Any) -> Path:
    """A configuration with dropout, weight averaging and accumulation, which saves at every step.

    Args:
        changes: by dotted key, with two underscores for a dot.
    """
    path = write_config(kind, root)
    settings = yaml.safe_load(path.read_text())
    settings["model"]["init_args"]["config"] |= {"dropout": 0.1, "attention_dropout": 0.1}
    sizes = {
        "gpt": {"batch_size": 16, "max_documents": 12},
        "bert": {"batch_size": 16, "max_documents": 40},
        "transformer": {"max_tokens": 48},
    }
    settings["data"]["init_args"] |= sizes[kind]
    settings["checkpoint"] |= {"every_n_train_steps": 1}
    settings["trainer"] |= {
        "max_steps": STEPS,
        "val_check_interval": 6,  # batches: every third step
        "log_every_n_steps": 4,
        "default_root_dir": str(root / "logs"),
        "callbacks": [{"class_path": "EMA", "init_args": {"decay": 0.9}}],
    }
    for key, value in changes.items():
        *parents, leaf = key.split("__")
        place = settings
        for parent in parents:
            place = place[parent]
        place[leaf] = value
    path.write_text(yaml.safe_dump(settings))
    return path


def checkpoints(run: Path) -> dict[int, Path]:
    """Those of each step."""
    return {int(path.stem): path for path in (run / "checkpoints").glob("*.ckpt") if path.stem.isdigit()}


def assert_same(ours: Any, theirs: Any, place: str = "") -> None:
    """Equal to the last bit, in every tensor and value of two nested structures."""
    if isinstance(theirs, torch.Tensor):
        assert torch.equal(ours, theirs), place
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), place
        for key in theirs:
            assert_same(ours[key], theirs[key], f"{place}.{key}")
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), place
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(a, b, f"{place}[{i}]")
    else:
        assert ours == theirs or (ours != ours and theirs != theirs), f"{place}: {ours} {theirs}"


def final(run: Path) -> dict[str, Any]:
    """What a run ended with: weights, averages, optimizer, schedule and random states."""
    path = run / "checkpoints" / "last.ckpt"
    checkpoint = read_shards(path) if path.is_dir() else torch.load(path)
    return {
        name: checkpoint[name]
        for name in ("state_dict", "plain_weights", "optimizer_states", "lr_schedulers", "processes", "global_step")
        if name in checkpoint
    }


def figures(run: Path, after: int = 0) -> list[dict[str, str]]:
    """What a run logged behind a step, less its speed."""
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) > after]
    rows = [{name: value for name, value in row.items() if value and "throughput" not in name} for row in rows]
    return [row for row in rows if set(row) - {"step", "epoch"}]
