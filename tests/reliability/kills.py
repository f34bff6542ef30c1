"""Kill `fit` at random moments, resume it, and compare what it ends with to the uninterrupted run.

    python -m tests.reliability.kills --kills 50
    python -m tests.reliability.kills --kills 10 --processes 2
    python -m tests.reliability.kills --kills 10 --processes 2 --strategy fsdp --sharded --async-save

Each trial prepares its data anew, is killed with SIGKILL at a moment drawn evenly from the whole run, from the start of
preparing to the end of the last checkpoint, and then goes on by the same command with ``--resume auto``. What it ends
with must be that of the uninterrupted run to the last bit: weights, averages, optimizer, random states, and every
figure that was logged. Trials are forked from a process that has imported everything, so that a second of importing is
not most of what is killed.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import yaml
from lightning.fabric.utilities.rank_zero import rank_zero_only

import src.cli
import src.cli.training
from tests.distributed.jobs import free_port
from tests.reliability.runs import assert_same, config, figures, final


def write_config(kind: str, root: Path, steps: int, averaged: bool = True) -> Path:
    """A run of a second or two with checkpoints and validations all along; with averaged weights or without."""
    path = config(kind, root, checkpoint__every_n_train_steps=4, checkpoint__save_top_k=1, trainer__max_steps=steps)
    settings = yaml.safe_load(path.read_text())
    settings["trainer"] |= {"val_check_interval": 20, "log_every_n_steps": 5}
    settings["data"]["init_args"] |= (
        {} if kind == "transformer" else {"eval_batch_size": 1}
    )  # a validation worth a kill
    phase = {"class_path": "tests.reliability.probes.Phase", "init_args": {"path": str(root / "phase")}}
    settings["trainer"]["callbacks"] = [*(settings["trainer"]["callbacks"] if averaged else ()), phase]
    path.write_text(yaml.safe_dump(settings))
    return path


def start(arguments: list[str], log: Path, processes: int) -> list[int]:
    """Fork the processes of a job; they find each other as those of torchrun do."""
    port, found = free_port(), []
    for rank in range(processes):
        pid = os.fork()
        if pid:
            found.append(pid)
            continue
        output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if processes > 1:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
            place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "kills"}
            os.environ.update({name: str(value) for name, value in place.items()} | {"GLOO_SOCKET_IFNAME": "lo"})
            rank_zero_only.rank = rank  # read from the environment at the import, which was before the fork
        status = 1
        try:
            src.cli.main(arguments)
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            sys.stdout.flush()
            os._exit(status)
    return found


def wait(pids: list[int], limit: float = 900.0) -> list[int]:
    """The statuses of processes, as a shell has them; those that hang for ``limit`` seconds are killed."""

    def kill() -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    timer = threading.Timer(limit, kill)
    timer.start()
    try:
        return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    finally:
        timer.cancel()


def where(root: Path) -> str:
    """What a run was at when it was killed."""
    if not (root / "phase").exists():
        return "data preparation"
    return (root / "phase").read_text() or "training"


def trial(root: Path, command: list[str], moment: float, processes: int) -> tuple[str, int]:
    """Kill a job at a moment, and let it go on to its end; where it was killed, and how often it went on."""
    for leftover in ("cache", "logs"):
        shutil.rmtree(root / leftover, ignore_errors=True)
    (root / "phase").unlink(missing_ok=True)
    pids = start(command, root / "log", processes)
    time.sleep(moment)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait(pids)
    phase = where(root)
    statuses = wait(start(command, root / "log", processes))
    assert not any(statuses), f"statuses {statuses} after a kill in {phase}: {(root / 'log').read_text()[-3000:]}"
    return phase, (root / "log").read_text().count("resuming from")


def newest(root: Path, kind: str) -> Path:
    """The folder of the newest run."""
    return max((root / "logs" / kind).iterdir(), key=lambda path: int(path.name.partition("_")[2]))


def main() -> None:
    """Run the trials, and print how many there were of each phase."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--kind", choices=("gpt", "bert", "transformer"), default="gpt")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--strategy", choices=("ddp", "fsdp"), default="ddp", help="of several processes")
    parser.add_argument("--sharded", action="store_true", help="FSDP's checkpoints in shards, and not in one file")
    parser.add_argument("--async-save", action="store_true", help="write checkpoints while training goes on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=160, help="of the uninterrupted run")
    options = parser.parse_args()
    root, rng = Path(tempfile.mkdtemp()), random.Random(options.seed)
    path = write_config(options.kind, root, options.steps, averaged=options.strategy == "ddp")
    command = ["fit", "--config", str(path), "--resume", "auto", "--allow_class_paths", "tests"]
    if options.processes > 1:
        command += [
            "--config",
            f"configs/strategy/{options.strategy}.yaml",
            "--trainer.devices",
            str(options.processes),
        ]
    if options.sharded:
        command.append("--trainer.strategy.init_args.save_distributed_checkpoint=true")
    if options.async_save:
        command.append("--checkpoint.async_save=true")
    begun = time.monotonic()
    assert not any(wait(start(command, root / "log", options.processes))), (root / "log").read_text()
    length = time.monotonic() - begun
    whole, logged = final(newest(root, options.kind)), figures(newest(root, options.kind))
    phases: Counter[str] = Counter()
    for number in range(options.kills):
        moment = rng.random() * length
        phase, _ = trial(root, command, moment, options.processes)
        phases[phase] += 1
        assert_same(final(newest(root, options.kind)), whole, f"kill {number} in {phase}")
        assert figures(newest(root, options.kind)) == logged, f"kill {number} in {phase}"
        print(
            f"kill {number + 1}/{options.kills} after {moment:.2f} s of {length:.2f}, in {phase}: same end", flush=True
        )
    counts = ", ".join(f"{count} in {phase}" for phase, count in sorted(phases.items()))
    print(f"{options.kills} kills ({counts}): every run ended as the uninterrupted one, to the last bit")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
