"""serve: a page and an HTTP interface on this machine, to try checkpoints."""

import asyncio

from src.cli.verb import NonNegative, Positive


def serve(
    checkpoint: list[str] | None = None,
    index: str | None = None,
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
        index: a folder that `rag index` made, to search and, with a GPT among the checkpoints, to answer from
        port: 0 takes a free one
        max_new_tokens: that a request may ask for
        max_requests: answered or waiting at a time; one more is refused (429)
        max_bytes: of a request (413)
        timeout: seconds that an answer may take (504)
        batch_size: requests that are answered together
        device: cpu, cuda, cuda:1, mps, ...
    """
    # with torch and the server, for which its help does not wait
    from src.extras.serve.app import make_app
    from src.extras.serve.batching import Batcher
    from src.extras.serve.server import HOST, Server, listen
    from src.extras.serve.services import load_services

    services = load_services(checkpoint or [], index, device, max_new_tokens)
    listener = listen(port)
    address = f"http://{HOST}:{listener.getsockname()[1]}"
    print(f"{address}  {', '.join(services)}; its interface: {address}/docs; Ctrl-C ends it", flush=True)
    with Batcher(batch_size, max_requests, timeout) as batcher:
        asyncio.run(Server(make_app(services, batcher, max_bytes), batcher).serve([listener]))
