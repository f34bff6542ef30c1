"""The exceptions that end a command with one line instead of a traceback, and the commands that such a line names."""

import os
import shlex


class InputError(ValueError):
    """A bad input: what is wrong, where, and what to do, in one line.

    The command line prints it without a traceback and exits with status 2. Everything else that is raised is a fault
    of the program and keeps its traceback.
    """


class RunEnded(Exception):  # noqa: N818
    """A run that all of its processes end at the same step, before its time; one line, and a status of its own."""

    status: int


class Diverged(RunEnded):
    """The loss or a gradient is no finite number any more."""

    status = 3


class Preempted(RunEnded):
    """A signal asked the run to end; it has saved a checkpoint, and the same command with ``--resume auto`` goes on."""

    status = 75  # EX_TEMPFAIL of sysexits.h: try again later


class Interrupted(Preempted):
    """Ctrl-C asked the run to end; it has saved a checkpoint as well."""

    status = 130  # as a shell has it for a command that SIGINT ended


def run_sh(*arguments: object) -> str:
    """Write a command of ``run.sh`` that a shell takes as it stands, by the name that it was called by."""
    return shlex.join([os.environ.get("RUN_SH", "./run.sh"), *map(str, arguments)])
