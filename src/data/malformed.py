"""Rows that cannot be trained on: left out and counted, with examples, or refused."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from src.data.progress import announce
from src.errors import InputError
from src.files import codec_of, unescaped

EXAMPLES = 3  # of each reason
SHOWN = 60  # characters of one


@dataclass(frozen=True)
class Reading:
    """How files are read, and what is done about malformed rows.

    Args:
        strict: refuse the first malformed row, instead of leaving it out.
        max_malformed: refuse a file with a larger share of malformed rows.
        delimiter: between the fields of a table; by the ending and the header of the file if null.
        encoding: of texts, tables and JSON; UTF-8 if null, or what a table is without doubt.
    """

    strict: bool = False
    max_malformed: float = 0.05
    delimiter: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_malformed <= 1:
            raise InputError(f"max_malformed is {self.max_malformed}: it is a share, from 0 to 1")
        if self.delimiter is not None and len(unescaped(self.delimiter)) != 1:
            raise InputError(f"delimiter is {self.delimiter!r}: it must be one character")
        codec_of(self.encoding or "utf-8")  # refuses an unknown one


DEFAULT = Reading()


class Malformed:
    """Counts malformed rows by reason; the first of each are kept as examples.

    Args:
        source: where the rows come from, for people.
        reading: whether the first of them is refused, and how many may be left out.
    """

    def __init__(self, source: str, reading: Reading) -> None:
        self.source, self.reading = source, reading
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, reason: str, place: str, content: object = "") -> None:
        """Count a row.

        Raises:
            InputError: under ``strict``.
        """
        shown = f": {str(content)[:SHOWN]!r}" if content != "" else ""
        if self.reading.strict:
            raise InputError(
                f"{place} of {self.source} is malformed ({reason}){shown}: mend it, or set strict to false"
            )
        self.counts[reason] += 1
        if len(self._examples.setdefault(reason, [])) < EXAMPLES:
            self._examples[reason].append(f"{place}{shown}")

    def announce(self, of: int | None = None) -> None:
        """Tell how many there were, why, and where the first of them are.

        Args:
            of: rows that were read, where all that was counted here is unreadable.

        Raises:
            InputError: a larger share of those than ``max_malformed`` was.
        """
        told = [f"{count:,} rows, {reason} ({self._examples_of(reason)})" for reason, count in self.counts.items()]
        left_out = sum(self.counts.values())
        self.counts.clear()
        self._examples.clear()
        if of is not None and left_out > self.reading.max_malformed * of:
            raise InputError(
                f"{left_out:,} of the {of:,} rows of {self.source} cannot be read: {'; '.join(told)}; mend them, set "
                f"delimiter or encoding, or max_malformed above {self.reading.max_malformed:g}"
            )
        for line in told:
            announce(f"left out of {self.source}: {line}")

    def _examples_of(self, reason: str) -> str:
        more = ", ..." if self.counts[reason] > EXAMPLES else ""
        return f"{', '.join(self._examples[reason])}{more}"


def text_objection(texts: Sequence[object]) -> str | None:
    """What is wrong with the texts of a row, if anything."""
    if None in texts:
        return "null"
    if not all(isinstance(text, str) for text in texts):
        return "wrong type"
    return None if all(str(text).strip() for text in texts) else "empty"
