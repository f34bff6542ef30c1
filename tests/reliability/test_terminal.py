"""A run on a terminal of 80 columns: its progress bar, and what Ctrl-C does."""

import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from src.checkpoint import read_header
from tests.distributed.jobs import ROOT
from tests.reliability.runs import config

COLUMNS = 80
STEPS = 100_000  # more than a test waits for
LOGGED = 1000  # every so many steps


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

    def read_until(self, is_enough: Callable[[str], bool]) -> None:
        """Read on until enough is written, or the command ends."""
        while not is_enough(self.output):
            try:
                self.output += os.read(self._terminal, 1 << 16).decode(errors="replace")
            except OSError:  # the other end is closed
                return

    def ctrl_c(self) -> None:
        os.write(self._terminal, b"\x03")

    def wait(self) -> int:
        """The exit status, negative for a signal, once the output is read to its end."""
        self.read_until(lambda output: False)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def endless(tmp_path: Path, *callbacks: dict[str, object]) -> list[str]:
    path = config("gpt", tmp_path, checkpoint__every_n_train_steps=None, trainer__max_steps=STEPS)
    settings = yaml.safe_load(path.read_text())
    settings["trainer"] |= {"val_check_interval": LOGGED, "log_every_n_steps": LOGGED}
    settings["trainer"]["callbacks"] += callbacks
    path.write_text(yaml.safe_dump(settings))
    return ["fit", "--config", str(path), "--resume", "auto", "--allow_class_paths", "tests"]


def steps_shown(output: str) -> set[int]:
    return {int(step) for step in re.findall(rf"(\d+)/{STEPS}", output)}


def test_ctrl_c_saves_after_the_step_and_says_how_to_go_on(tmp_path):
    terminal = Terminal(endless(tmp_path))
    # the bar, written ten times a second, moves long before a step is logged
    terminal.read_until(lambda output: len(steps_shown(output)) > 4 or max(steps_shown(output), default=0) >= LOGGED)
    assert len(steps_shown(terminal.output) & set(range(1, LOGGED))) > 3, terminal.output
    terminal.ctrl_c()
    assert terminal.wait() == 130, terminal.output
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", terminal.output)
    stopped = re.search(r"stopped: asked to end at step (\d+): saved (\S+); the command with --resume auto", text)
    assert stopped, text
    assert read_header(Path(stopped[2]))["global_step"] == int(stopped[1])
    assert "Traceback" not in text
    # the bar is a line
    bars = [line.removesuffix("^C") for line in re.split(r"[\r\n]+", text) if line.startswith("train ")]
    assert not [line for line in bars if len(line) > COLUMNS or "…" in line]


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(tmp_path):
    """While the first one's checkpoint is being saved, which takes a minute here; the one before it stays as it was."""
    terminal = Terminal(endless(tmp_path, {"class_path": "tests.reliability.probes.SlowSave"}))
    terminal.read_until(lambda output: len(steps_shown(output)) > 4)
    terminal.ctrl_c()
    terminal.read_until(lambda output: "saving slowly" in output)
    terminal.ctrl_c()
    assert terminal.wait() == -2, terminal.output  # which a shell calls 130
    assert "Traceback" not in terminal.output
    assert not list((tmp_path / "logs").rglob("*.ckpt"))
