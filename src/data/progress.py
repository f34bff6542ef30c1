"""What the user is told while data are prepared; below every other module of this package."""

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TypeVar

from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console
from rich.progress import track

T = TypeVar("T")


@cache
def _console() -> Console:
    """Make the one of all bars, so that one may stand below a spinner; not before there is a terminal."""
    return Console(stderr=True)


def with_progress(items: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    """Yield the items as they are, under a bar with the time left on standard error where that is a terminal."""
    if not sys.stderr.isatty():
        return items
    return track(items, what, total, console=_console(), transient=True)


def working(what: str) -> AbstractContextManager[object]:
    """Show a spinner, where standard error is a terminal, while something is done that cannot be counted."""
    return _console().status(what) if sys.stderr.isatty() else nullcontext()


@rank_zero_only
def announce(message: str) -> None:
    """Tell the user, once and not once a process."""
    print(message)
