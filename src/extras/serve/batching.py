"""Dynamic batching: requests that come together are one batch of the network, which one thread runs."""

import asyncio
import threading
import time
import traceback
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Protocol, Self

from pydantic import BaseModel

TOGETHER = 0.005  # seconds that a batch waits for requests that come at the same time


class Busy(Exception):  # noqa: N818
    """There is no place for one more request."""


class Stopped(Exception):  # noqa: N818
    """The server was stopped before the answer was complete."""


class Job:
    """A request on its way: what it asks, and its answer as it is made.

    Args:
        service: what answers it.
        request: as it came.
        encoded: its tokens, as the service has made them.
        seconds: how long it may take.
    """

    def __init__(self, service: "Batched", request: Any, encoded: Any, seconds: float) -> None:
        self.service, self.request, self.encoded = service, request, encoded
        self.deadline = time.monotonic() + seconds
        self.has_left = False  # its client, or it was answered
        self._loop = asyncio.get_running_loop()
        self._made: asyncio.Queue[str | BaseModel | Exception] = asyncio.Queue()

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for more of it."""
        return self.has_left or time.monotonic() > self.deadline

    def put(self, made: str | BaseModel | Exception) -> None:
        """Hand over a piece of text, or what ends the answer: all of it, or an error. Called by the batches' thread."""
        with suppress(RuntimeError):  # the server has ended, and its event loop is closed
            self._loop.call_soon_threadsafe(self._made.put_nowait, made)

    async def made(self) -> AsyncIterator[str | BaseModel]:
        """Yield the pieces, and the whole answer as the last.

        Raises:
            TimeoutError: once the request has taken too long.
        """
        while True:
            async with asyncio.timeout(self.deadline - time.monotonic()):
                item = await self._made.get()
            if isinstance(item, Exception):
                raise item
            yield item
            if isinstance(item, BaseModel):
                return


class Batched(Protocol):
    """What makes batches of requests, and answers them."""

    def joins(self, batch: list[Job], job: Job) -> bool:
        """Tell whether a request can go in one batch with others, so that its answer is what it is alone."""

    def run(self, batch: list[Job]) -> None:
        """Answer each request of a batch."""


class Batcher:
    """One thread that answers requests in batches, in the order in which they came.

    Args:
        batch_size: requests of a batch at most.
        max_requests: requests that wait or are answered at a time; one more is refused.
        seconds: how long a request may take.
    """

    def __init__(self, batch_size: int, max_requests: int, seconds: float) -> None:
        self.batch_size, self.max_requests, self.seconds = batch_size, max_requests, seconds
        self._waiting: deque[Job] = deque()
        self._inside: set[Job] = set()
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="batches")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread, with the batch that it runs."""
        self.stop()
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def enter(self, service: Batched, request: Any, encoded: Any) -> Job:
        """Take a place for a request, which :meth:`leave` frees.

        Raises:
            Busy: if there is none.
        """
        if len(self._inside) >= self.max_requests:
            raise Busy(f"{self.max_requests} requests are being answered or wait: try again later")
        job = Job(service, request, encoded, self.seconds)
        self._inside.add(job)
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()
        return job

    def leave(self, job: Job) -> None:
        """Free the place of a request that is answered, or whose client has left: a batch goes on without it."""
        job.has_left = True
        self._inside.discard(job)

    def stop(self) -> None:
        """End what is not answered yet."""
        for job in self._inside:
            job.put(Stopped("the server was stopped before the answer was complete"))
            job.has_left = True

    def _run(self) -> None:
        while not self._is_closed:
            if batch := self._next():
                try:
                    batch[0].service.run(batch)
                except Exception as error:  # of this batch alone: the others are answered
                    traceback.print_exc()
                    for job in batch:
                        job.put(error)

    def _next(self) -> list[Job]:
        """Wait for a request, and take it out of the queue with those that can go with it."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
        time.sleep(TOGETHER)
        batch: list[Job] = []
        with self._changed:
            remaining: deque[Job] = deque()
            for job in self._waiting:
                if job.is_over:
                    continue
                fits = not batch or (job.service is batch[0].service and job.service.joins(batch, job))
                (batch if fits and len(batch) < self.batch_size else remaining).append(job)
            self._waiting = remaining
        return batch
