"""Pairs of sentences from anywhere, as splits: text files, HuggingFace `datasets`, and message catalogues."""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from src.data import catalogues
from src.data.corpora import load_dataset
from src.data.malformed import Malformed, readable
from src.errors import InputError
from src.files import check_file, read_lines

EMBEDDED = "catalogues"
SPLITS = ("train", "validation", "test")
TABLES = (".parquet", ".arrow", ".csv", ".tsv", ".json", ".jsonl")
Pair = tuple[str, str]  # source, target


@dataclass(frozen=True)
class Pairs(Iterable[Pair]):
    """Pairs that can be read again and again; ``read`` starts anew."""

    read: Callable[[], Iterable[Pair]]

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.read())


@dataclass(frozen=True)
class ParallelCorpus:
    """Where pairs come from, in which direction, and how they are split.

    A split that the source lacks is cut out of the training pairs by a hash of the source sentence: always the same
    ones, and no sentence is in two splits.

    Args:
        source: ``catalogues`` (English and French, fetched by pip); a folder; or a dataset on the HuggingFace hub. For
            a split ``train`` a folder holds two aligned text files ``train.de`` and ``train.en``, or ``train.tsv``
            with a header of the languages, or ``train.jsonl``, each also as ``.gz``; or it is one that `datasets`
            loads, such as Parquet files. Rows have a column ``translation`` with the languages in it, as those of WMT,
            or a column for each.
        source_language: what is translated, as the source names it.
        target_language: into what.
        name: configuration of a hub dataset, such as ``de-en``.
        revision: of a hub dataset.
        splits: what ``train``, ``validation`` and ``test`` are called by the source, where it is something else.
        validation_fraction: share of the training pairs for validation, where the source has no such split.
        test_fraction: the same for testing.
        max_pairs: read no more training pairs than this.
        strict: refuse malformed rows, instead of leaving them out of training.
    """

    source: str = EMBEDDED
    source_language: str = "en"
    target_language: str = "fr"
    name: str | None = None
    revision: str | None = None
    splits: dict[str, str] | None = None
    validation_fraction: float = 0.05
    test_fraction: float = 0.05
    max_pairs: int | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        unknown = set(self.splits or {}) - set(SPLITS)
        if unknown:
            raise InputError(f"splits has {min(unknown)!r}: its keys are {', '.join(SPLITS)}")
        if self.source_language == self.target_language:
            raise InputError(f"source_language and target_language are both {self.source_language!r}")
        shares = (self.validation_fraction, self.test_fraction)
        if min(shares) < 0 or sum(shares) >= 1:
            raise InputError(
                f"validation_fraction and test_fraction are {shares}: they must leave something to train on"
            )

    @property
    def languages(self) -> tuple[str, str]:
        """From which language into which."""
        return self.source_language, self.target_language

    def name_of(self, split: str) -> str:
        """What the source calls a split."""
        return (self.splits or {}).get(split, split)

    def fingerprint(self) -> str:
        """A hash of the arguments and of the files' names, sizes and times: equal while nothing has changed."""
        folder = Path(self.source)
        files = sorted(path for path in folder.rglob("*") if self._is_data(path)) if folder.is_dir() else []
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return hashlib.sha256(json.dumps([asdict(self), stats, catalogues.WHEELS]).encode()).hexdigest()

    def _is_data(self, path: Path) -> bool:
        """Whether a file is one that pairs may be read from: a log or a translation written there changes nothing."""
        splits = {self.name_of(split) for split in SPLITS}
        return path.is_file() and (
            path.name.split(".")[0] in splits or Path(path.name.removesuffix(".gz")).suffix in TABLES
        )

    def load(self, cache_dir: Path) -> dict[str, Pairs]:
        """The pairs of each split.

        Raises:
            InputError: a file is missing, not UTF-8, or of another length than its partner; a language is not there;
                or the source cannot be reached.
        """
        if self.source == EMBEDDED:
            found = {"train": self._embedded(cache_dir)}
        elif Path(self.source).is_dir():
            found = self._folder(Path(self.source), cache_dir)
        elif Path(self.source).exists() or self.source.startswith((".", "/", "~")):
            raise InputError(f"{self.source} is no folder: name one that holds the files of each split")
        else:
            arguments = {"name": self.name, "revision": self.revision}
            found = self._of_datasets(load_dataset(self.source, self.source, cache_dir, **arguments))
        return self._hold_out(found)

    def _embedded(self, cache_dir: Path) -> Pairs:
        for language in self.languages:
            self._check_language(language, catalogues.LANGUAGES)
        pairs = catalogues.pairs(cache_dir / "wheels")
        return Pairs(lambda: pairs if self.source_language == "en" else [(b, a) for a, b in pairs])

    def _check_language(self, language: str, known: Iterable[str]) -> None:
        if language not in known:
            raise InputError(f"{self.source} has no language {language!r}: it has {', '.join(sorted(known))}")

    def _folder(self, folder: Path, cache_dir: Path) -> dict[str, Pairs]:
        found: dict[str, Pairs] = {}
        for split in SPLITS:
            name = self.name_of(split)
            files = {path.name.removesuffix(".gz").removeprefix(f"{name}."): path for path in folder.glob(f"{name}.*")}
            table = next((kind for kind in ("tsv", "jsonl", "json") if kind in files), None)
            if table:
                found[split] = self._table(files[table], table, cache_dir)
            elif files and not {"parquet", "arrow", "csv"} & set(files):
                for language in self.languages:
                    self._check_language(language, files)
                strict = self.strict or split != "train"
                found[split] = aligned(files[self.source_language], files[self.target_language], strict)
        return found or self._of_datasets(load_dataset(self.source, self.source, cache_dir))

    def _table(self, file: Path, kind: str, cache_dir: Path) -> Pairs:
        check_file(file, is_text=False)
        if kind != "tsv":
            malformed = Malformed(str(file), self.strict)
            file = readable(file, "json", self.languages, cache_dir, malformed)
            malformed.announce()
        check_file(file, is_text=True)
        arguments: dict[str, Any] = {"data_files": str(file)}
        if kind == "tsv":  # quotes are part of a sentence, and so are "null" and "NA"
            arguments |= {"sep": "\t", "quoting": 3, "keep_default_na": False}
        reader = "csv" if kind == "tsv" else "json"
        return self._rows(load_dataset(str(file), reader, cache_dir, **arguments)["train"])

    def _of_datasets(self, loaded: dict[str, Any]) -> dict[str, Pairs]:
        found = {split: self._rows(loaded[self.name_of(split)]) for split in SPLITS if self.name_of(split) in loaded}
        if "train" not in found:
            raise InputError(
                f"{self.source} has no split {self.name_of('train')!r}: it has {', '.join(loaded)}; set "
                "--data.init_args.splits"
            )
        return found

    def _rows(self, rows: Any) -> Pairs:
        nested = "translation" in rows.column_names
        first = rows[0] if len(rows) else {}
        for language in self.languages:
            self._check_language(language, first["translation"] if nested and first else rows.column_names)
        source, target = self.languages

        def read() -> Iterator[Pair]:
            for row in rows:
                texts = row["translation"] if nested else row
                yield texts[source] or "", texts[target] or ""

        return Pairs(read)

    def _hold_out(self, found: dict[str, Pairs]) -> dict[str, Pairs]:
        """The splits, those that are missing cut out of the training pairs."""
        if "train" not in found:
            raise InputError(f"{self.source} has no split {self.name_of('train')!r}: set --data.init_args.splits")
        train = found["train"]
        if self.max_pairs is not None:
            train = Pairs(partial(_first, train, self.max_pairs))
        start = 0.0
        for split, share in (("validation", self.validation_fraction), ("test", self.test_fraction)):
            if split not in found and share:
                found[split] = Pairs(partial(_between, train, start, start + share))
                start += share
        return {**found, "train": Pairs(partial(_between, train, start, 1.0)) if start else train}


def _first(pairs: Pairs, n: int) -> Iterator[Pair]:
    return islice(pairs, n)


def _between(pairs: Pairs, low: float, high: float) -> Iterator[Pair]:
    """The pairs whose source sentence has a hash from ``low`` to ``high``; letters alone count, in either case."""
    for source, target in pairs:
        letters = "".join(filter(str.isalnum, source.casefold())) or source
        if low <= zlib.crc32(letters.encode()) / 2**32 < high:
            yield source, target


def aligned(source: Path, target: Path, strict: bool = True) -> Pairs:
    """The pairs of two text files, a sentence a line.

    Args:
        source: one of them.
        target: the other.
        strict: whether a line that is not UTF-8 is refused; else its pair is left out, and counted.

    Raises:
        InputError: a file is missing, empty or not UTF-8, or one has more lines than the other.
    """
    for path in (source, target):
        check_file(path, is_text=strict)
    counts = [sum(1 for _ in read_lines(path, errors="replace")) for path in (source, target)]
    if counts[0] != counts[1]:
        raise InputError(
            f"{source} has {counts[0]:,} lines and {target} {counts[1]:,}: aligned files have a sentence a line, "
            "and equally many"
        )

    told = False  # the pairs are read more than once

    def read() -> Iterator[Pair]:
        nonlocal told
        malformed = Malformed(f"{source} and {target}", strict)
        sides = [read_lines(path, errors="surrogateescape") for path in (source, target)]
        for i, pair in enumerate(zip(*sides, strict=True), start=1):
            if any(text.encode("utf-8", "replace") != text.encode("utf-8", "surrogateescape") for text in pair):
                malformed.add("invalid UTF-8", f"line {i:,}")
            else:
                yield pair
        if not told:
            told = True
            malformed.announce()

    return Pairs(read)
