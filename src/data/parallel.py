"""Pairs of sentences from anywhere, as splits: text files, HuggingFace `datasets`, and message catalogues."""

import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from src.data import embedded
from src.data.malformed import DEFAULT, Malformed, Reading
from src.data.sharing import Part
from src.data.sources import (
    COMPANIONS,
    Source,
    check_source,
    fingerprint,
    format_of,
    kind_for_datasets,
    load_rows,
    locate,
    walk,
)
from src.data.splits import SPLITS, split_of, split_parts
from src.errors import InputError
from src.files import UTF8, check_file, encoding_name, is_text, read_lines

EMBEDDED = "catalogues"
SHARD = re.compile(r"-\d+-of-\d+$")
ENDING = re.compile(r"\.gz$", re.IGNORECASE)
Pair = tuple[str, str]  # source, target


@dataclass(frozen=True)
class Pairs(Iterable[Pair]):
    """Pairs that can be read again and again; ``read`` starts anew, and gives about ``count``."""

    read: Callable[[], Iterable[Pair]]
    count: int

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.read())

    def part(self, part: Part) -> "Pairs":
        """Choose one of several parts; the last one has what there is beyond ``count``."""
        low, high = part.bounds(self.count)
        return Pairs(lambda: islice(self, low, None if part.number == part.of else high), high - low)


@dataclass(frozen=True)
class ParallelCorpus:
    """Where pairs come from, in which direction, and how they are split.

    A split that the source lacks is cut out of the training pairs by a hash of the source sentence: always the same
    ones, and no sentence is in two splits.

    Args:
        source: ``catalogues`` (English and French, fetched by pip); a file; a folder; or a dataset on the HuggingFace
            hub. A file is a .tsv or .csv with a header of the languages, a .jsonl or a .parquet. For a split ``train``
            a folder holds such a file of that name, each also as ``.gz``, or two aligned text files ``train.de`` and
            ``train.en``; or it is one that ``DatasetDict.save_to_disk`` wrote. Rows have a column ``translation`` with
            the languages in it, as those of WMT, or a column for each.
        name: configuration of a hub dataset, such as ``de-en``.
        reading: how files are read, and what is done about malformed rows, which are left out of training.
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
    reading: Reading = DEFAULT

    def __post_init__(self) -> None:
        unknown = set(self.splits or {}) - set(SPLITS)
        if unknown:
            raise InputError(f"splits has {min(unknown)!r}: its keys are {', '.join(SPLITS)}")
        if self.source_language == self.target_language:
            raise InputError(f"source_language and target_language are both {self.source_language!r}")
        check_source(self.source, self.validation_fraction, self.test_fraction)

    @property
    def languages(self) -> tuple[str, str]:
        """From which language into which."""
        return self.source_language, self.target_language

    def fingerprint(self) -> str:
        """Hash the arguments and the files' names, sizes and times: equal while nothing has changed."""
        path = self._path
        files = [path] if path.is_file() else filter(self._is_data, walk(path) if path.is_dir() else [])
        return fingerprint({**asdict(self), "wheels": embedded.WHEELS}, files)

    @property
    def _path(self) -> Path:
        return Path(self.source).expanduser()

    def _is_data(self, path: Path) -> bool:
        """Tell whether pairs may be read from a file: a log or a translation written there changes nothing."""
        if _is_table(path) or path.suffix == ".arrow":
            return True
        stem, language = _stem(path)
        return language in self.languages and (stem in (self.splits or {}).values() or split_of(stem) is not None)

    def load(self, cache_dir: Path) -> dict[str, Pairs]:
        """Read the pairs of each split."""
        if self.source == EMBEDDED:
            found = {"train": self._embedded(cache_dir)}
        elif self._path.is_dir():
            found = self._folder(self._path, cache_dir)
        elif self._path.is_file() and _is_table(self._path):
            found = self._of_datasets(locate(self.source), cache_dir)
        elif self._path.exists() or self.source.startswith((".", "/", "~")) or format_of(self._path):
            problem = "no table of pairs" if self._path.exists() else "no file or folder"
            raise InputError(
                f"{self.source} is {problem}: name a .tsv, .csv, .jsonl or .parquet file with a column a language, or "
                "a folder that holds the files of each split"
            )
        else:
            found = self._of_datasets(Source(self.source, {}, "hub"), cache_dir)
        return self._hold_out(found)

    def _embedded(self, cache_dir: Path) -> Pairs:
        self._check_languages(embedded.LANGUAGES)
        pairs = embedded.translations(cache_dir / "wheels")
        return Pairs(lambda: pairs if self.source_language == "en" else [(b, a) for a, b in pairs], len(pairs))

    def _check_languages(self, known: Iterable[str]) -> None:
        for language in self.languages:
            if language not in known:
                raise InputError(f"{self.source} has no language {language!r}: it has {', '.join(sorted(known))}")

    def _folder(self, folder: Path, cache_dir: Path) -> dict[str, Pairs]:
        files = walk(folder)
        if kind_for_datasets(folder, files):
            return self._of_datasets(locate(self.source), cache_dir)
        parts = {name: files for name, files in _by_stem(files, folder).items() if self._has_pairs(name, files)}
        if not parts:
            raise InputError(f"{folder} has no files of {' and '.join(self.languages)}")
        found: dict[str, Pairs] = {}
        for split, of_split in split_parts(parts, self.source, self.splits).items():
            if tables := [path for path in of_split.values() if _is_table(path)]:
                # their split is chosen: their names say nothing any more
                source = Source(str(tables[0]), dict.fromkeys(tables, ""), str(format_of(tables[0])))
                found[split] = self._rows(load_rows(source, cache_dir, self.reading, self.languages)["train"])
            else:
                reading = self.reading if split == "train" else replace(self.reading, strict=True)
                found[split] = aligned(of_split[self.source_language], of_split[self.target_language], reading)
        return found

    def _has_pairs(self, name: str, files: dict[str, Path]) -> bool:
        """Tell whether the files of one name are tables, or text in both languages; refuse text in one alone."""
        if any(map(_is_table, files.values())):
            return True
        if name in ({split: split for split in SPLITS} | (self.splits or {})).values():
            self._check_languages(files)
        return files.keys() >= set(self.languages)

    def _of_datasets(self, source: Source, cache_dir: Path) -> dict[str, Pairs]:
        parts = load_rows(source, cache_dir, self.reading, self.languages, name=self.name, revision=self.revision)
        return {split: self._rows(rows) for split, rows in split_parts(parts, self.source, self.splits).items()}

    def _rows(self, rows: Any) -> Pairs:
        nested = "translation" in rows.column_names
        first = rows[0] if len(rows) else {}
        self._check_languages(first["translation"] if nested and first else rows.column_names)
        source, target = self.languages

        def read() -> Iterator[Pair]:
            for row in rows:
                texts = row["translation"] if nested else row
                yield texts[source] or "", texts[target] or ""

        return Pairs(read, len(rows))

    def _hold_out(self, found: dict[str, Pairs]) -> dict[str, Pairs]:
        """Complete the splits, those that are missing cut out of the training pairs."""
        train = found["train"]
        if self.max_pairs is not None:
            train = Pairs(partial(islice, train, self.max_pairs), min(train.count, self.max_pairs))
        start = 0.0
        for split, fraction in (("validation", self.validation_fraction), ("test", self.test_fraction)):
            if split not in found and fraction:
                found[split] = _between(train, start, start + fraction)
                start += fraction
        return {**found, "train": _between(train, start, 1.0) if start else train}


def _between(pairs: Pairs, low: float, high: float) -> Pairs:
    """Choose the pairs whose source has a hash from ``low`` to ``high``; letters alone count, in either case."""

    def read() -> Iterator[Pair]:
        for source, target in pairs:
            letters = "".join(filter(str.isalnum, source.casefold())) or source
            if low <= zlib.crc32(letters.encode()) / 2**32 < high:
                yield source, target

    return Pairs(read, round((high - low) * pairs.count))


def _is_table(path: Path) -> bool:
    return format_of(path) not in (None, "text") and path.name not in COMPANIONS


def _stem(path: Path) -> tuple[str, str]:
    """Split a file name into what it shares with the other side or the other shards, and the rest: a language."""
    stem, _, ending = ENDING.sub("", path.name).rpartition(".")
    shard = SHARD.search(stem)
    return (stem[: shard.start()], f"{stem[shard.start() :]}.{ending}") if shard else (stem, ending)


def _by_stem(files: Iterable[Path], folder: Path) -> dict[str, dict[str, Path]]:
    """Group files by what their names share, and then by the rest; with their folders where two names are equal."""
    found: dict[tuple[Path, str], dict[str, Path]] = {}
    for path in files:
        stem, rest = _stem(path)
        found.setdefault((path.relative_to(folder).parent, stem), {})[rest] = path
    counts = Counter(stem for _, stem in found)
    return {(stem if counts[stem] == 1 else (parent / stem).as_posix()): of for (parent, stem), of in found.items()}


def aligned(source: Path, target: Path, reading: Reading) -> Pairs:
    """Read the pairs of two text files, a sentence a line.

    Under ``strict`` a line that is not UTF-8 is refused; else its pair is left out, and counted.
    """
    encoding = reading.encoding or UTF8
    for path in (source, target):
        check_file(path, is_text=False)
        if reading.strict:
            reading.check_text(path)
    counts = [sum(1 for _ in read_lines(path, strict=False, encoding=encoding)) for path in (source, target)]
    if counts[0] != counts[1]:
        raise InputError(
            f"{source} has {counts[0]:,} lines and {target} {counts[1]:,}: aligned files have a sentence a line, "
            "and equally many"
        )

    told = False  # the pairs are read more than once

    def read() -> Iterator[Pair]:
        nonlocal told
        malformed = Malformed(f"{source} and {target}", reading)
        sides = [read_lines(path, strict=False, encoding=encoding) for path in (source, target)]
        for i, pair in enumerate(zip(*sides, strict=True), start=1):
            if all(map(is_text, pair)):
                yield pair
            else:
                malformed.add(f"invalid {encoding_name(encoding)}", f"line {i:,}")
        if not told:
            told = True
            malformed.announce(of=counts[0])

    return Pairs(read, counts[0])
