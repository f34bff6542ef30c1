"""Preparing data by all cores: processes are handed groups of texts, and what they make of them comes back in order."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Any, TypeVar

from src.errors import InputError

T = TypeVar("T")
R = TypeVar("R")


def n_processes() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
    """Yield each item with what a function makes of it, in order.

    There is a process for each core, and no more than two items for each are read ahead. One item alone, or those of a
    machine with one core or of a process that may have none of its own, are computed here. Item, result and function
    are pickled, the last where processes are not forked, so that it must be one of a module.
    """
    items = iter(items)
    first = list(islice(items, 2))
    items, n = chain(first, items), n_processes()
    if len(first) < 2 or n == 1 or multiprocessing.current_process().daemon:
        yield from ((item, function(item)) for item in items)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    pool = ProcessPoolExecutor(n, context, _begin, (function,))
    pending: deque[tuple[T, Future[Any]]] = deque()
    try:
        for item in items:
            pending.append((item, pool.submit(_call, item)))
            if len(pending) == 2 * n:
                done, future = pending.popleft()
                yield done, future.result()
        while pending:
            done, future = pending.popleft()
            yield done, future.result()
    except BrokenProcessPool as error:
        raise InputError(
            f"one of the {n} processes that tokenise was killed from outside, perhaps for want of memory: free some, "
            "or give this command fewer cores (taskset --cpu-list 0)"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(function: Callable[[Any], Any]) -> None:
    """Make a process ready: it leaves signals to the one that began it, and ends with it, even if that is killed."""
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is a process a core already
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(item: Any) -> Any:
    return _function(item)


_function: Callable[[Any], Any]
