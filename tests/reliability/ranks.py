"""What two processes do together, each forked from this one; prints what came of it.

python -m tests.reliability.ranks FOLDER
"""

import json
import sys
from pathlib import Path

import yaml

from tests.reliability.kills import start, wait
from tests.reliability.runs import config


def job(root: Path, name: str, probe: dict[str, object], *options: str) -> dict[str, object]:
    """A run on two processes with something happening on the second of them; their statuses and what was printed."""
    folder = root / name
    folder.mkdir()
    path = config("gpt", folder, checkpoint__every_n_train_steps=None)
    settings = yaml.safe_load(path.read_text())
    settings["trainer"]["callbacks"].append(probe)
    path.write_text(yaml.safe_dump(settings))
    command = ["fit", "--config", str(path), "--config", "configs/strategy/ddp.yaml", "--trainer.devices", "2"]
    command += ["--allow_class_paths", "tests", "--data.batch_size", "8", *options]
    statuses = wait(start(command, folder / "log", 2))
    return {"statuses": statuses, "log": (folder / "log").read_text()}


def main() -> None:
    """Run the jobs, and print them as JSON."""
    root = Path(sys.argv[1])
    asked = {"place": "step", "step": 4, "marker": str(root / "done"), "name": "SIGTERM", "rank": 1}
    signal = {"class_path": "tests.reliability.probes.Signal", "init_args": asked}
    poison = {"class_path": "tests.reliability.probes.Poison", "init_args": {"where": "loss", "steps": [4], "rank": 1}}
    found = {
        "signal": job(root, "signal", signal),
        "stop": job(root, "stop", poison),
        "skip": job(root, "skip", poison, "--guard.on_fault", "skip"),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
