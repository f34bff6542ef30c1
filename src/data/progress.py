"""Progress of what takes long, on a terminal."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

T = TypeVar("T")
PATIENCE = 2.0  # seconds before anything is shown


def with_progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items as they are, under a bar on standard error once they have taken more than two seconds.

    Args:
        items: to go through.
        what: is done with them, in a few words.
        total: how many there are, if that is known.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task, start, shown = bar.add_task(what, total=total), time.monotonic(), False
    try:
        for item in items:
            if not shown and time.monotonic() - start > PATIENCE:
                bar.start()
                shown = True
            yield item
            bar.advance(task)
    finally:
        if shown:
            bar.stop()


@rank_zero_only
def announce(message: str) -> None:
    """Tell the user, once and not once a process."""
    print(message)
