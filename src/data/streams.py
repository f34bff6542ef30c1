"""Documents of a stream that may be larger than the disk: shared between readers, shuffled, resumable, and retried."""

import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

from src.data.progress import announce

BLOCK = 1000  # documents that are read, and shuffled, at once
TRIES, LONGEST_PAUSE = 10, 60.0  # of a reader whose connection fails; seconds
# packages whose exceptions are of the network; some of them are no ConnectionError
NETWORK = {"aiohttp", "httpcore", "httpcore2", "httpx", "httpx2", "requests", "urllib3"}


class DocumentStream:
    """The training documents of a stream, without those that are held out.

    Each reader (a worker of a rank) has files of its own where there are enough of them; else it reads all of them and
    takes every n-th document. What one pass gives to all readers is each document once.

    Args:
        rows: a ``datasets.IterableDataset`` with a column ``text``.
        held_out: the rows that are in another split, as another one. What is equal to one of them is no training
            document either; so the files need no order, as they would if the first rows were skipped.
        is_part: whether the rows are the first ones of a larger stream, so that files cannot be told apart.
    """

    def __init__(self, rows: Any, held_out: Any = None, is_part: bool = False) -> None:
        self.rows, self.is_part = rows, is_part
        blocks = _blocks(held_out, None) if held_out is not None else ()
        self.held_out = {_digest(text) for _, block in blocks for text in block if text}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of one pass, in the order of the source."""
        for _, block in _blocks(self.rows, None):
            yield from ({"text": text} for text in block if self._is_wanted(text))

    def blocks(
        self, reader: int, readers: int, number: int, seed: int, state: str | None = None
    ) -> Iterator[tuple[str | None, list[str]]]:
        """Yield the documents of a reader in a pass, :data:`BLOCK` rows at a time, each with the state before it.

        Args:
            reader: from 0.
            readers: of all ranks together.
            number: of the pass, from 0; each has another order of the files.
            seed: of that order.
            state: before the first block that is wanted; None for the beginning of the pass.
        """
        from datasets.distributed import split_dataset_by_node

        shards = 1 if self.is_part else self.rows.num_shards
        # where they do not divide evenly, some readers begin the next pass before others
        by_files = shards % readers == 0 or shards >= 16 * readers
        rows = split_dataset_by_node(self.rows, reader, readers, "shards" if by_files else "examples")
        rows.set_epoch(1 + (seed * 1_000_003 + number) % (2**31 - 2))  # by which `datasets` shuffles files
        for before, block in _blocks(rows, state):
            yield before, [text for text in block if self._is_wanted(text)]

    def _is_wanted(self, text: str | None) -> bool:
        return text is not None and bool(text.strip()) and _digest(text) not in self.held_out


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()


def _blocks(rows: Any, state: str | None) -> Iterator[tuple[str | None, list[str]]]:
    """Read a block at a time, again from its beginning where the connection fails."""
    blocks: Any = None
    tries = 0
    while True:
        try:
            if blocks is None:
                rows.load_state_dict(None if state is None else json.loads(state))
                blocks = rows.iter(BLOCK)
            block = next(blocks, None)
        except Exception as error:
            tries += 1
            if tries == TRIES or not is_of_network(error):
                raise
            pause = min(2.0**tries, LONGEST_PAUSE)
            announce(f"the stream was interrupted ({type(error).__name__}: {error}): trying again in {pause:g} s")
            time.sleep(pause)
            blocks = None
            continue
        tries = 0
        if block is None:
            return
        yield state, block["text"]
        state = json.dumps(rows.state_dict())


def is_of_network(error: BaseException) -> bool:
    """Tell whether an error may pass by itself: a lost connection, a server that does not answer in time."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status in (408, 429) or status >= 500
    return type(error).__module__.partition(".")[0] in NETWORK
