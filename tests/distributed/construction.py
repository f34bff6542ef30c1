"""How much memory a process takes to build its part of a network, on two processes.

    OMP_NUM_THREADS=1 python -m tests.distributed.construction

Prints the table of docs/extras/plan/scale.md, of a GPT of 0.3B parameters.
"""

import json
import tempfile
from pathlib import Path

from tests.distributed.jobs import fit, run_job, write_config

MIB = 2**20
STRATEGIES = ("ddp", "fsdp", "tensor_parallel", "pipeline")
LARGE = {"d_model": 1024, "n_heads": 16, "n_layers": 24}


def construction(name: str, root: Path, shape: dict[str, int]) -> dict[str, int]:
    """Build a GPT under a strategy; of the process that takes more."""
    root.mkdir(parents=True, exist_ok=True)
    config = write_config("gpt", root)
    probe = {"class_path": "tests.distributed.probes.Construction", "init_args": {"folder": str(root / "found")}}
    more = [f"--model.init_args.config.{key}={value}" for key, value in shape.items()]
    more += ["--config", f"configs/strategy/{name}.yaml", "--trainer.devices=2", "--allow_class_paths=tests"]
    more += [f"--trainer.callbacks={json.dumps([probe])}", "--trainer.fast_dev_run=true"]
    run_job(root / "job", [fit(config, root / "logs", "gpt", 1, *more)])
    ranks = [json.loads((root / "found" / f"{rank}.json").read_text()) for rank in (0, 1)]
    return max(ranks, key=lambda found: found["peak"])


def main() -> None:
    """Print a row for each strategy, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        for name in STRATEGIES:
            found = construction(name, Path(folder) / name, LARGE)
            print("|", name, *(f"| {found[what] / MIB:,.1f}" for what in ("shard", "block", "peak")), "|", flush=True)


if __name__ == "__main__":
    main()
