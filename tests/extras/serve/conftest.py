"""A server of random networks, one for each task, on a port of its own; and how to ask it."""

import asyncio
import http.client
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from src.checkpoint import save_checkpoint
from src.extras.serve.app import make_app
from src.extras.serve.batching import Batcher
from src.extras.serve.server import Server as Uvicorn
from src.extras.serve.server import listen
from src.extras.serve.services import load_services
from tests.random_networks import checkpoint_of

NETWORKS = {"generate": "gpt", "translate": "transformer", "fill-mask": "bert", "classify": "bert_classifier"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """The checkpoint for each task."""
    folder, found = tmp_path_factory.mktemp("serve"), {}
    for verb, name in NETWORKS.items():
        found[verb] = folder / f"{name}.ckpt"
        save_checkpoint(checkpoint_of(name)[1], found[verb])
    return found


@pytest.fixture(scope="session")
def services(checkpoints):
    return load_services([str(path) for path in checkpoints.values()], max_new_tokens=1_000_000)


class Server(NamedTuple):
    """A running server."""

    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, path: str, body: Any = None, headers: dict[str, str] = JSON) -> http.client.HTTPResponse:
        """Send a request, by POST if it has a body, and give the answer, whose body is not read yet."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", path, content, headers)
        answer = connection.getresponse()
        answer.connection = connection  # or it would be closed while the answer is read
        return answer

    def ask(self, verb: str, **request: Any) -> dict[str, Any]:
        """Ask for an answer; gives it with its status."""
        answer = self.send(f"/api/{verb}", request)
        return {"status": answer.status, **json.loads(answer.read())}

    def events(self, verb: str = "generate", **request: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the events of a stream, each by its name."""
        answer = self.send(f"/api/{verb}", {**request, "stream": True})
        name = "text"
        try:
            for line in answer:
                field, _, value = line.decode().rstrip("\n").partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    yield name, json.loads(value)
        finally:
            answer.connection.close()


@contextmanager
def serving(services, max_requests=64, seconds=60, max_bytes=4096, batch_size=16) -> Iterator[Server]:
    """Run a server in a thread of this process."""
    listener = listen(0)
    with Batcher(batch_size, max_requests, seconds) as batcher:
        running = Uvicorn(make_app(services, batcher, max_bytes), batcher)
        thread = threading.Thread(target=lambda: asyncio.run(running.serve([listener])))
        thread.start()
        while not running.started:
            time.sleep(0.01)
        yield Server(listener.getsockname()[1])
        running.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def shared(services) -> Iterator[Server]:
    """A server that all tests may ask."""
    with serving(services) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
