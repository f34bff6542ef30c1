"""The socket and the server behind `serve`."""

import asyncio
import socket
import sys

import uvicorn
from fastapi import FastAPI

from src.errors import InputError
from src.extras.serve.batching import Batcher

HOST = "127.0.0.1"
GRACE = 5  # seconds that answers have to be completed when the server is stopped


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
