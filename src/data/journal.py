"""What of a folder is prepared: all of it, some splits, or a part of one, where a killed preparation goes on."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from src.atomic import checksums, damaged, sync_folder, write_text
from src.coverage import MeasuredTokenizer
from src.data.progress import announce
from src.data.store import ArrayWriter
from src.data.texts import Piece

EVERY = 30.0  # seconds
INFO = "info.json"  # the last file that is written: the counts of each split, and the checksums of all other files
JOURNAL, COMPLETE = ".journal", ".complete"  # after the name of a split, until the folder is complete


class Split:
    """A split that is being prepared, which stays as it is from its end on, though another one be killed.

    Args:
        folder: that is prepared.
        name: of the split.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._complete, self._journal = folder, folder / f"{name}{COMPLETE}", folder / f"{name}{JOURNAL}"
        self.counts: dict[str, int] | None = None  # of a complete one
        if self._complete.is_file():  # of a process that was killed
            state = json.loads(self._complete.read_bytes())
            self.counts = state["counts"]
            for line in state["told"]:
                announce(line)

    def end(self, counts: dict[str, int], told: list[str]) -> dict[str, int]:
        """Note that all of it is on the disk, and give its counts.

        Args:
            counts: of what is in it.
            told: what is told of it now, and again where a preparation goes on behind it.
        """
        for line in told:
            announce(line)
        sync_folder(self._folder)
        write_text(self._complete, json.dumps({"counts": counts, "told": told}))
        self._journal.unlink(missing_ok=True)
        return counts


def write_info(folder: Path, splits: dict[str, dict[str, int]]) -> None:
    """Describe a folder in which everything is prepared, and remove what said how far it was.

    Args:
        folder: that is prepared.
        splits: the counts of each.
    """
    files = {name: of for name, of in checksums(folder).items() if not name.endswith((JOURNAL, COMPLETE, INFO))}
    write_text(folder / INFO, json.dumps({"splits": splits, "files": files}))
    for path in (*folder.glob(f"*{JOURNAL}"), *folder.glob(f"*{COMPLETE}")):
        path.unlink()


def is_complete(folder: Path) -> bool:
    """Tell whether a prepared folder is as it was written."""
    described = folder / INFO
    try:
        files = json.loads(described.read_bytes())["files"]
        return damaged(folder, files, described.stat().st_mtime_ns) is None
    except Exception:  # whatever is wrong with it, it is made again
        return False


class Journal:
    """The lengths of a split's arrays after a number of pieces, written down twice a minute.

    A process that finds one cuts the arrays to these lengths, and reads over the pieces without tokenising them.

    Args:
        folder: that is prepared.
        split: its name.
        tokenizer: whose counts go on as well.
        n_arrays: how many arrays there are.
    """

    def __init__(self, folder: Path, split: str, tokenizer: MeasuredTokenizer, n_arrays: int) -> None:
        self.path = folder / f"{split}{JOURNAL}"
        self.lengths, self.pieces = (0,) * n_arrays, 0
        self.counts: dict[str, int] = {}  # the caller's
        self._latest = time.monotonic()
        if self.path.is_file():
            state = json.loads(self.path.read_bytes())
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
