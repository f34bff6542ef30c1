"""What the server asks of a task, and what of an extra that offers one."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from src.errors import InputError
from src.extras.serve.batching import Job


class Service(ABC):
    """A task, as the server offers it: what it is asked and answers, and batches of requests."""

    request: type[BaseModel]
    answer: type[BaseModel]
    panel: Path | None = None  # a piece of the page, of what an extra offers

    @abstractmethod
    def encode(self, request: Any) -> Any:
        """Make the tokens of a request; refuse what cannot be answered."""

    @abstractmethod
    def joins(self, batch: list[Job], job: Job) -> bool:
        """Tell whether a request can go in one batch with others, so that its answer is what it is alone."""

    @abstractmethod
    def run(self, batch: list[Job]) -> None:
        """Answer each request of a batch."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Say what a page shows of it."""


class Offered(Protocol):
    """What an extra offers, each request by itself: the function ``services`` of its module ``served`` makes them.

    The first line of its docstring says what it does. Its ``panel`` adds to ``TASKS`` and ``show`` of `page.html`.
    """

    request: type[BaseModel]  # with a field ``text`` and, if it streams, ``stream``
    answer: type[BaseModel]
    panel: Path

    def respond(self, request: Any) -> Iterator[str | BaseModel]:
        """Yield the pieces of a text, if there is one, and the whole answer as the last."""

    def facts(self) -> dict[str, Any]:
        """Say what a page shows of it."""


class OneByOne(Service):
    """What an extra offers, a request at a time."""

    def __init__(self, offered: Offered) -> None:
        self.offered, self.__doc__ = offered, offered.__doc__
        self.request, self.answer, self.panel = offered.request, offered.answer, offered.panel

    def encode(self, request: Any) -> Any:
        return request

    def joins(self, batch: list[Job], job: Job) -> bool:
        return False

    def run(self, batch: list[Job]) -> None:
        (job,) = batch
        try:
            for made in self.offered.respond(job.request):
                if job.is_over:
                    return
                if getattr(job.request, "stream", False) or isinstance(made, BaseModel):
                    job.put(made)
        except InputError as error:  # of the request: no fault of the server
            job.put(error)

    def facts(self) -> dict[str, Any]:
        return self.offered.facts()
