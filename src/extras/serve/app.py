"""The HTTP interface: pages, one address a task, and limits, each of which is refused in one line of JSON."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi import Request as HTTPRequest
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.errors import InputError
from src.extras.serve.batching import Batcher, Busy, Job, Stopped
from src.extras.serve.service import Service
from src.files import is_text

PAGES = Path(__file__).parent
LOCAL = ("127.0.0.1", "localhost")
CLIENT_LEFT = 499  # nobody reads it: nginx's status for a client that has closed the connection
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

# what Starlette and FastAPI say in too few words
MEANINGS = {
    "Not Found": "there is no {path} here: /docs lists what there is",
    "Method Not Allowed": "{path} is not asked in that way: /docs says how",
    "There was an error parsing the body": "the request is no JSON that can be read",
}


class Error(BaseModel):
    """What is wrong, where, and what to do."""

    error: str = Field(description="one line")


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": description}
    for status, description in {
        400: "not JSON",
        403: "from a page of another site",
        411: "of unknown size",
        413: "too large",
        415: "not application/json",
        422: "a request that cannot be answered",
        429: "too many requests at a time",
        500: "a fault of the server",
        503: "the server is being stopped",
        504: "took too long",
    }.items()
}


def make_app(services: dict[str, Service], batcher: Batcher, max_bytes: int) -> FastAPI:
    """Make the interface to some services, by the names of their verbs."""
    app = FastAPI(
        title="Try a checkpoint",
        description="Checkpoints on this machine.",
        docs_url=None,  # FastAPI's own pages come from the internet
        redoc_url=None,
    )
    app.add_middleware(Gate, max_bytes=max_bytes)
    statuses = {InputError: 422, RequestValidationError: 422, Busy: 429, Stopped: 503, TimeoutError: 504}
    for kind, status in statuses.items():
        app.add_exception_handler(kind, _refusal(status))
    app.add_exception_handler(HTTPException, _refusal(None))
    app.add_exception_handler(Exception, _refusal(500))
    for verb, service in services.items():
        app.post(
            f"/api/{verb}",
            response_model=service.answer,
            responses=ERRORS,
            summary=(service.__doc__ or "").splitlines()[0],
            operation_id=verb,
        )(_endpoint(service, batcher))

    @app.get("/api/info", summary="Say what is served.")
    def info() -> dict[str, Any]:
        return {verb: service.facts() for verb, service in services.items()}

    panels = dict.fromkeys(service.panel for service in services.values() if service.panel)
    page = (PAGES / "page.html").read_text(encoding="utf-8")
    page = page.replace("<!-- panels -->", "".join(panel.read_text(encoding="utf-8") for panel in panels))
    app.add_api_route("/", lambda: HTMLResponse(page), include_in_schema=False)
    app.add_api_route("/docs", lambda: FileResponse(PAGES / "api.html"), include_in_schema=False)
    return app


def _endpoint(service: Service, batcher: Batcher) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def answer(http: HTTPRequest, body: Any) -> Any:
        for name, value in body:
            if isinstance(value, str) and not is_text(value):
                raise InputError(f"{name} has half a character (a lone surrogate), which no UTF-8 can hold")
        job = batcher.enter(service, body, service.encode(body))
        if getattr(body, "stream", False):
            return _Events(job, batcher)
        try:
            return await _unless_gone(http, job)
        finally:
            batcher.leave(job)

    answer.__annotations__["body"] = service.request
    return answer


async def _unless_gone(http: HTTPRequest, job: Job) -> Any:
    """Wait for the answer, or until the client has closed the connection."""
    answered, gone = asyncio.ensure_future(_whole(job)), asyncio.ensure_future(_disconnected(http))
    try:
        await asyncio.wait((answered, gone), return_when=asyncio.FIRST_COMPLETED)
        return answered.result() if answered.done() else Response(status_code=CLIENT_LEFT)
    finally:
        answered.cancel()
        gone.cancel()


async def _whole(job: Job) -> BaseModel:
    return [made async for made in job.made()][-1]  # type: ignore[return-value]


async def _disconnected(http: HTTPRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


class _Events(EventSourceResponse):
    """The pieces of an answer as server-sent events; then an event ``done`` with all of it, or ``error``."""

    def __init__(self, job: Job, batcher: Batcher) -> None:
        super().__init__(self._events())
        self.job, self.batcher = job, batcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:  # also if the client left before the first event
            self.batcher.leave(self.job)

    async def _events(self) -> AsyncIterator[str]:
        try:
            async for made in self.job.made():
                if isinstance(made, str):
                    yield _event({"text": made})
                else:
                    yield _event(made.model_dump(), "done")
        except Exception as error:
            yield _event({"error": _line(error)}, "error")


def _event(content: dict[str, Any], name: str | None = None) -> str:
    """Format a server-sent event; JSON keeps it on one line."""
    return f"{f'event: {name}{chr(10)}' if name else ''}data: {json.dumps(content)}\n\n"


def _refusal(status: int | None) -> Callable[[HTTPRequest, Any], Response]:
    """Make the handler of an error; its own status if None."""

    def handle(request: HTTPRequest, error: Any) -> Response:
        line = _line(error)
        if line in MEANINGS:
            line = MEANINGS[line].format(path=request.url.path)
        return JSONResponse({"error": line}, status or error.status_code)

    return handle


def _line(error: Exception) -> str:
    """Say in one line what is wrong, and where."""
    if isinstance(error, RequestValidationError):
        first, *others = error.errors()
        if first["type"] == "json_invalid":
            return f"the request is not JSON: {first['ctx']['error']}, at character {first['loc'][-1]}"
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        more = f" (and {len(others)} more)" if others else ""
        return f"{where or 'the request'}: {first['msg'].removeprefix('Value error, ')}{more}"
    if isinstance(error, HTTPException):
        return str(error.detail)
    if isinstance(error, TimeoutError):
        return "the answer took too long: ask for less"
    is_ours = isinstance(error, InputError | Busy | Stopped)
    return " ".join(str(error).split()) if is_ours else "a fault of the server: its terminal has the traceback"


class Gate:
    """Let in what this machine's own pages and programs send, and no large requests.

    A page of another site could have its name resolve to 127.0.0.1 (DNS rebinding), which its ``Host`` header shows, or
    send a request from where it is, which ``Origin`` and a content type that needs no permission show.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refused = self._refused(Headers(scope=scope), scope["method"])
        answer: ASGIApp = JSONResponse({"error": refused[1]}, refused[0]) if refused else self.app
        await answer(scope, receive, with_headers)

    def _refused(self, headers: Headers, method: str) -> tuple[int, str] | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        name = None
        with suppress(ValueError):
            name = urlsplit(f"http://{host}").hostname
        if name not in LOCAL:
            return 403, f"the host {host!r} is not this machine: open http://127.0.0.1 at this port"
        if origin not in (None, f"http://{host}"):
            return 403, f"a page of {origin} may not ask: open http://{host}"
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if method != "POST":
            return None
        if kind != "application/json":
            return 415, f"the content type is {kind!r}: send application/json"
        if "content-length" not in headers:
            return 411, "the request does not say its size: send Content-Length"
        size = int(headers["content-length"])  # the HTTP parser refuses what is no number, and a body of another size
        return (
            (413, f"the request has {size:,} bytes: {self.max_bytes:,} are the most") if size > self.max_bytes else None
        )
