"""How much of the time the processes of a pipeline wait: tokens a second of two, beside one with one thread.

    OMP_NUM_THREADS=1 python -m tests.distributed.bubble

Alone on two cores. Rounds of all settings in turn; prints the medians of the ratios.
"""

import statistics
import tempfile
from pathlib import Path

from tests.distributed.jobs import fit, losses, run_job, write_config

ROUNDS, MICRO_BATCHES = 3, (1, 2, 4, 8)


def speed(root: Path, config: Path, name: str, *more: str, processes: int) -> float:
    """Tokens a second over the last of the logged stretches of a run."""
    shape = ["--model.init_args.config.d_model=256", "--model.init_args.config.n_layers=8"]
    shape += ["--model.init_args.config.max_seq_len=128", "--data.seq_len=128", "--trainer.max_steps=18"]
    shape += ["--trainer.accumulate_grad_batches=1", "--trainer.log_every_n_steps=6", "--trainer.limit_val_batches=0"]
    logs = root / name
    run_job(logs / "job", [[*fit(config, logs, "gpt", 1, *more, *shape), "--data.batch_size=32"]], processes)
    return losses(logs / "gpt" / "version_0", "throughput/tokens_per_second")[-1]


def main() -> None:
    """Print a row for each number of micro-batches."""
    ratios: dict[int, list[float]] = {m: [] for m in MICRO_BATCHES}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        config = write_config("gpt", root)
        for turn in range(ROUNDS):
            alone = speed(root, config, f"alone{turn}", processes=1)
            for m in MICRO_BATCHES:
                pipeline = ["--config", "configs/strategy/pipeline.yaml", "--trainer.devices=2"]
                pipeline += [f"--trainer.strategy.init_args.micro_batches={m}"]
                pipeline += ["--trainer.strategy.init_args.schedule=GPipe"]
                # both processes of a pipeline count the same tokens
                together = speed(root, config, f"{m}-{turn}", *pipeline, processes=2) / 2
                ratios[m].append(together / alone)
    for m, found in ratios.items():
        ratio = statistics.median(found)
        spread = f"{min(found):.2f} to {max(found):.2f}"
        print(f"| {m} | {ratio:.2f} ({spread}) | {2 * m / (m + 1):.2f} | {1 - ratio / 2:.2f} | {1 / (m + 1):.2f} |")


if __name__ == "__main__":
    main()
