"""Train the three tasks in turn for long, and see whether memory and open files grow.

    python -m tests.reliability.soak --minutes 60

Each task trains in a process of its own for its share of the time. Every few seconds its resident memory and its open
files are counted. A task is flat if the median of its last quarter is no more than a twentieth above the median of its
second quarter: the first is for warming up.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.distributed.jobs import ROOT
from tests.reliability.runs import KINDS, config

EVERY = 2.0  # seconds


def sample(pid: int) -> tuple[float, int]:
    """Resident memory in MB, and open files, of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(list(Path(f"/proc/{pid}/fd").iterdir()))


def soak(kind: str, root: Path, minutes: float) -> list[tuple[float, int]]:
    """The samples of a task that trains, validates, samples and saves for some minutes."""
    seconds = round(60 * minutes)
    changes = {"trainer__max_steps": 10**7, "trainer__max_time": f"00:00:{seconds // 60:02}:{seconds % 60:02}"}
    changes |= {"checkpoint__every_n_train_steps": None, "trainer__val_check_interval": 200}
    path = config(kind, root, **changes)
    process = subprocess.Popen([sys.executable, "-m", "src", "fit", "--config", str(path)], cwd=ROOT)
    samples, first = [], root / f"logs/{kind}/version_0/checkpoints/last.ckpt"
    while process.poll() is None:
        if first.exists():  # what is imported and prepared until then is no leak
            samples.append(sample(process.pid))
        time.sleep(EVERY)
    assert process.returncode == 0
    return samples


def quarters(values: list[float]) -> tuple[float, float]:
    """The medians of the second and of the last quarter."""
    n = len(values) // 4
    return statistics.median(values[n : 2 * n]), statistics.median(values[-n:])


def main() -> None:
    """Soak each task, print its figures, and fail if one of them grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="of all three together")
    options = parser.parse_args()
    flat = True
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            samples = soak(kind, Path(folder), options.minutes / len(KINDS))
        memory, files = (quarters([float(one[i]) for one in samples]) for i in (0, 1))
        grows = memory[1] > 1.05 * memory[0] or files[1] > 1.05 * files[0]
        flat &= not grows
        held = f"memory {memory[0]:.0f} to {memory[1]:.0f} MB, open files {files[0]:.0f} to {files[1]:.0f}"
        print(f"{kind}: {len(samples)} samples, {held}: {'grows' if grows else 'flat'}", flush=True)
    sys.exit(not flat)


if __name__ == "__main__":
    main()
