"""What of a folder is prepared: all of it, some splits, or a part of one, where a killed preparation goes on."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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


def once(folder: Path, split: str, write: Callable[[], tuple[dict[str, int], list[str]]]) -> dict[str, int]:
    """Prepare a split, unless a process that was killed behind it has completed it; give its counts.

    Args:
        folder: that is prepared.
        split: its name.
        write: it, and give the counts of what is in it, and what is to be told of it, now and by who goes on behind it.
    """
    complete = folder / f"{split}{COMPLETE}"
    if complete.is_file():
        counts, told = json.loads(complete.read_bytes())
    else:
        counts, told = write()
        sync_folder(folder)
        write_text(complete, json.dumps([counts, told]))
        (folder / f"{split}{JOURNAL}").unlink(missing_ok=True)
    for line in told:
        announce(line)
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
