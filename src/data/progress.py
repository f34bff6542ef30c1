"""What the user is told while data are prepared; below every other module of this package."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def with_progress(items: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    """Yield the items as they are, under a bar on standard error where that is a terminal."""
    if not sys.stderr.isatty():
        return items
    return track(items, what, total, console=Console(stderr=True), transient=True)


@rank_zero_only
def announce(message: str) -> None:
    """Tell the user, once and not once a process."""
    print(message)
