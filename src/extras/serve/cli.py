"""serve: a page and an HTTP interface on this machine, to try checkpoints."""

import asyncio
import socket
import sys

import uvicorn
from fastapi import FastAPI

from src.cli.verb import NonNegative, Positive
from src.errors import InputError
from src.extras.serve.app import make_app
from src.extras.serve.batching import Batcher
from src.extras.serve.services import load_services

HOST = "127.0.0.1"
GRACE = 5  # seconds that answers have to be completed when the server is stopped


def serve(
    checkpoint: list[str],
    port: NonNegative = 8000,
    max_new_tokens: Positive = 512,
    max_requests: Positive = 64,
    max_bytes: Positive = 65536,
    timeout: Positive = 60,
    batch_size: Positive = 16,
    device: str = "cpu",
) -> None:
    """Open a page on this machine, http://127.0.0.1:PORT, to try checkpoints, and the same by HTTP, until Ctrl-C.

    Nothing is seen from other machines. What a checkpoint can do is found in it: to generate, translate, fill masks or
    classify.

    Args:
        checkpoint: a checkpoint; repeat it for several, of different tasks
        port: 0 takes a free one
        max_new_tokens: that a request may ask for
        max_requests: answered or waiting at a time; one more is refused (429)
        max_bytes: of a request (413)
        timeout: seconds that an answer may take (504)
        batch_size: requests that are answered together
        device: cpu, cuda, cuda:1, mps, ...
    """
    services = load_services(checkpoint, device, max_new_tokens)
    listener = listen(port)
    address = f"http://{HOST}:{listener.getsockname()[1]}"
    print(f"{address}  {', '.join(services)}; its interface: {address}/docs; Ctrl-C ends it", flush=True)
    with Batcher(batch_size, max_requests, timeout) as batcher:
        asyncio.run(Server(make_app(services, batcher, max_bytes), batcher).serve([listener]))


class Server(uvicorn.Server):
    """A server that says nothing unless something is wrong, and completes or ends its answers before it ends itself."""

    def __init__(self, app: FastAPI, batcher: Batcher) -> None:
        self.batcher = batcher
        last_resort = 2 * GRACE
        super().__init__(
            uvicorn.Config(
                app, log_level="warning", ws="none", server_header=False, timeout_graceful_shutdown=last_resort
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, and end what is not answered in some seconds."""
        asyncio.get_running_loop().call_later(GRACE, self.batcher.stop)
        await super().shutdown(sockets)


def listen(port: int) -> socket.socket:
    """Take a port of this machine, for this machine alone; 0 takes a free one."""
    listener = socket.socket()
    if sys.platform != "win32":  # where it would let two servers have one port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # who comes before the server runs waits for it
    except (OSError, OverflowError) as error:
        listener.close()
        raise InputError(f"port {port} cannot be taken ({error}): name another one by --port; 0 finds one") from error
    return listener
