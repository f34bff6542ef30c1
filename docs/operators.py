"""Where a training step's time goes, by torch's operators: CPU milliseconds in each itself, per step.

    python -m docs.operators --config configs/shakespeare_char.yaml --data.source input.txt

Any option of fit may follow, but an optimizer made of several (Muon) counts as several steps. The run ends after a few
steps, and its files are thrown away.
"""

import sys
from tempfile import TemporaryDirectory
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.profiler import profile, schedule

from src.cli import main

BEFORE, STEPS, ROWS = 20, 10, 20  # steps before those that are profiled, profiled steps, operators in the table


def show(profiler: profile) -> None:
    """Print a Markdown table."""
    found = [(event.key, event.self_cpu_time_total / 1000 / STEPS) for event in profiler.key_averages()]
    found = sorted((row for row in found if not row[0].startswith("ProfilerStep")), key=lambda row: -row[1])
    print("\n| operator | ms a step |\n| --- | ---: |")
    for name, milliseconds in found[:ROWS]:
        print(f"| {name.removeprefix('aten::')} | {milliseconds:.3f} |")
    print(f"| all | {sum(milliseconds for _, milliseconds in found):.3f} |")


def observe(arguments: list[str]) -> None:
    """Run ``fit`` for as many steps as are needed."""
    steps = BEFORE + STEPS
    with TemporaryDirectory() as folder:
        limits: dict[str, Any] = {
            "trainer.max_steps": steps,
            "trainer.val_check_interval": steps,
            "trainer.num_sanity_val_steps": 0,
            "trainer.limit_val_batches": 1,
            "trainer.log_every_n_steps": steps,
            "trainer.default_root_dir": folder,
        }
        options = [text for name, value in limits.items() for text in (f"--{name}", str(value))]
        when = schedule(wait=BEFORE - 5, warmup=5, active=STEPS, repeat=1)
        with profile(schedule=when, on_trace_ready=show) as profiler:
            hook = register_optimizer_step_post_hook(lambda *_: profiler.step())
            try:
                main(["fit", *arguments, *options])
            finally:
                hook.remove()


if __name__ == "__main__":
    observe(sys.argv[1:])
