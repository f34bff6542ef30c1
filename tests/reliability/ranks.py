"""What two processes do together, each forked from this one; prints what came of it.

python -m tests.reliability.ranks FOLDER JOB ...
"""

import json
import sys
from pathlib import Path

import yaml

from tests.reliability.kills import start, wait
from tests.reliability.runs import config


def poison(where: str, step: int, rank: int | None = 1) -> dict[str, object]:
    """A callback that does that at a step, on the second process or on both."""
    arguments = {"where": where, "steps": [step], "rank": rank}
    return {"class_path": "tests.reliability.probes.Poison", "init_args": arguments}


SIGNAL = {"place": "step", "step": 4, "marker": "done", "name": "SIGTERM", "rank": 1}
# 30 steps before it, since a spike stands out of twenty
SPIKE = ("--trainer.max_steps", "32", "--trainer.limit_val_batches", "0")
# name -> strategy, what happens, and options
JOBS: dict[str, tuple[str, dict[str, object], tuple[str, ...]]] = {
    "signal": ("ddp", {"class_path": "tests.reliability.probes.Signal", "init_args": SIGNAL}, ()),
    "interrupt": ("ddp", {"class_path": "tests.reliability.probes.Interrupt", "init_args": {"step": 4}}, ()),
    "stop": ("ddp", poison("loss", 4), ()),
    "skip": ("ddp", poison("loss", 4), ("--guard.on_fault", "skip")),
    "skip_gathered": (
        "fsdp",
        poison("output", 4, None),
        ("--guard.on_fault", "skip", "--trainer.strategy.init_args.reshard_after_forward", "false"),
    ),
    "spike": ("ddp", poison("jump", 30), SPIKE),
    "spike_in_parts": ("fsdp", poison("jump", 30), SPIKE),
    "shard_fsdp": ("fsdp", poison("shard", 4), ()),
    "shard_tensor_parallel": ("tensor_parallel", poison("shard", 4), ()),
}


def run(root: Path, name: str) -> dict[str, object]:
    """A job on two processes; their statuses and what was printed."""
    strategy, probe, options = JOBS[name]
    folder = root / name
    folder.mkdir()
    path = config("gpt", folder, checkpoint__every_n_train_steps=None)
    settings = yaml.safe_load(path.read_text())
    settings["trainer"]["callbacks"] = [*settings["trainer"]["callbacks"] * (strategy == "ddp"), probe]  # EMA: ddp only
    path.write_text(yaml.safe_dump(settings))
    command = ["fit", "--config", str(path), "--config", f"configs/strategy/{strategy}.yaml", "--trainer.devices", "2"]
    command += ["--allow_class_paths", "tests", "--data.batch_size", "8", *options]
    statuses = wait(start(command, folder / "log", 2), limit=300)
    return {"statuses": statuses, "log": (folder / "log").read_text()}


def main() -> None:
    """Run the jobs, and print them as JSON."""
    root, names = Path(sys.argv[1]), sys.argv[2:]
    SIGNAL["marker"] = str(root / "done")
    print(json.dumps({name: run(root, name) for name in names}))


if __name__ == "__main__":
    main()
