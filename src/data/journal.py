"""How far a split is written, so that a preparation that was killed goes on there."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from src.atomic import write_text
from src.coverage import MeasuredTokenizer
from src.data.progress import announce
from src.data.store import ArrayWriter
from src.data.texts import Piece

EVERY = 30.0  # seconds


class Journal:
    """The lengths of a split's arrays after a number of pieces, written down twice a minute.

    A process that finds one cuts the arrays to these lengths, and reads over the pieces without tokenising them.

    Args:
        path: of the journal, in the folder that is prepared.
        tokenizer: whose counts go on as well.
        n_arrays: how many arrays there are.
    """

    def __init__(self, path: Path, tokenizer: MeasuredTokenizer, n_arrays: int) -> None:
        self.path = path
        self.lengths, self.pieces = (0,) * n_arrays, 0
        self.counts: dict[str, int] = {}  # the caller's
        self._latest = time.monotonic()
        if path.is_file():
            state = json.loads(path.read_bytes())
            self.lengths, self.pieces, self.counts = tuple(state["lengths"]), state["pieces"], state["counts"]
            tokenizer.counts = state["measured"]
            announce(f"going on with {tokenizer.where} after {self.pieces:,} pieces of it")

    def rest(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """Leave out the pieces that are written."""
        return islice(pieces, self.pieces, None)

    def note(self, pieces: int, measured: dict[str, Any], arrays: Sequence[ArrayWriter], **counts: int) -> None:
        """Write down, if it is time, that so many more pieces are in the arrays, and all that was counted of them."""
        self.pieces += pieces
        if time.monotonic() - self._latest < EVERY:
            return
        for array in arrays:
            array.sync()
        state: dict[str, Any] = {"pieces": self.pieces, "lengths": [array.length for array in arrays]}
        state |= {"counts": counts, "measured": measured}
        write_text(self.path, json.dumps(state))
        self._latest = time.monotonic()

    def end(self) -> None:
        """Remove it: the arrays are complete."""
        self.path.unlink(missing_ok=True)
