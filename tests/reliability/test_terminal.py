"""A run on a terminal of 80 columns: its progress bar, and what Ctrl-C does."""

import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from pathlib import Path

import pytest
import yaml

from src.checkpoint import read_header
from tests.distributed.jobs import ROOT
from tests.reliability.runs import config

COLUMNS = 80
STEPS = 100_000  # more than a test waits for


class Terminal:
    """A command on a terminal of its own, of which it is the foreground job."""

    def __init__(self, command: list[str]) -> None:
        self.pid, self._terminal = pty.fork()
        if not self.pid:
            os.chdir(ROOT)
            os.environ.update(OMP_NUM_THREADS="1", TERM="xterm")
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests that run in the background of a script ignore it
            os.execv(sys.executable, [sys.executable, "-m", "src", *command])
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        self.output = ""

    def read_until(self, pattern: str) -> None:
        """Read on until something is written, or the command ends."""
        while not re.search(pattern, self.output):
            try:
                self.output += os.read(self._terminal, 1 << 16).decode(errors="replace")
            except OSError:  # the other end is closed
                return

    def ctrl_c(self) -> None:
        os.write(self._terminal, b"\x03")

    def wait(self) -> int:
        """The exit status, negative for a signal, once the output is read to its end."""
        self.read_until(r"(?!)")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def endless(tmp_path: Path, *callbacks: dict[str, object]) -> list[str]:
    path = config("gpt", tmp_path, checkpoint__every_n_train_steps=None, trainer__max_steps=STEPS)
    settings = yaml.safe_load(path.read_text())
    settings["trainer"] |= {"val_check_interval": 1000, "log_every_n_steps": 1000}
    settings["trainer"]["callbacks"] += callbacks
    path.write_text(yaml.safe_dump(settings))
    return ["fit", "--config", str(path), "--resume", "auto", "--allow_class_paths", "tests"]


def test_ctrl_c_saves_after_the_step_and_says_how_to_go_on(tmp_path):
    terminal = Terminal(endless(tmp_path))
    terminal.read_until(rf"[3-9]\d/{STEPS}")
    terminal.ctrl_c()
    assert terminal.wait() == 130, terminal.output
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", terminal.output)
    stopped = re.search(r"stopped: asked to end at step (\d+): saved (\S+); the command with --resume auto", text)
    assert stopped, text
    assert read_header(Path(stopped[2]))["global_step"] == int(stopped[1])
    assert "Traceback" not in text
    # the bar moves long before a step is logged, and is a line
    assert len({int(step) for step in re.findall(rf"(\d+)/{STEPS}", text)} & set(range(1, 100))) > 3
    bars = [line.removesuffix("^C") for line in re.split(r"[\r\n]+", text) if line.startswith("train ")]
    assert not [line for line in bars if len(line) > COLUMNS or "…" in line]


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(tmp_path):
    """While the first one's checkpoint is being saved, which takes a minute here; the one before it stays as it was."""
    terminal = Terminal(endless(tmp_path, {"class_path": "tests.reliability.probes.SlowSave"}))
    terminal.read_until(rf"[3-9]\d/{STEPS}")
    terminal.ctrl_c()
    terminal.read_until("saving slowly")
    terminal.ctrl_c()
    assert terminal.wait() == -2, terminal.output  # which a shell calls 130
    assert "Traceback" not in terminal.output
    assert not list((tmp_path / "logs").rglob("*.ckpt"))
