"""Documents from anywhere, as splits: HuggingFace `datasets` with one column of text."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from src.data import embedded
from src.data.malformed import DEFAULT, Malformed, Reading
from src.data.progress import with_progress
from src.data.sources import check_columns, check_source, files_of, fingerprint, label_of, load_rows, locate
from src.data.splits import SPLITS, cut_rows, split_files, split_parts
from src.data.streams import DocumentStream
from src.data.texts import Piece, TextFiles, cut, cut_by_position, stream_documents
from src.errors import InputError

# split -> rows: datasets.Dataset or datasets.IterableDataset, or text files, which are read in pieces
Splits = dict[str, Any]

EMBEDDED = "wikipedia"
SHARD, MOST_SHARDS = 1000, 1024  # documents of a shard of a stream that is at hand, and how many shards it has


@dataclass(frozen=True)
class Corpus:
    r"""Where documents come from and how they are split.

    A text file is one document, or several where ``document_separator`` stands between them. The splits of the source
    are taken where it has them; several files have those that they or their folders are named after, see
    :mod:`src.data.splits`. What is missing is cut out of the training documents: by document, always the same ones
    whatever the seed of a run; or, where there are so few that a split would get none, by position: the last part of
    each document.

    Args:
        source: ``wikipedia`` (the articles that install with the project); a .txt, .json, .jsonl, .csv, .tsv or
            .parquet file, also .gz; a pattern like ``data/*.jsonl``, or a list of those; a folder of such files, or
            one that ``Dataset.save_to_disk`` wrote; or the name of a dataset on the HuggingFace hub.
        document_separator: what separates the documents of a text file; ``\n`` for a line feed, with or without a
            carriage return.
        streaming: read training documents as they are needed; the first ``holdout_documents`` are held out, and so is
            every further document that is equal to one of them. Of a text file, a document of more than a million
            characters is read as several.
        reading: how files are read, and what is done about malformed rows.
    """

    source: str | list[str] = EMBEDDED
    name: str | None = None
    revision: str | None = None
    text_column: str = "text"
    document_separator: str | None = None
    validation_source: str | list[str] | None = None
    validation_fraction: float = 0.05
    test_fraction: float = 0.05
    max_documents: int | None = None
    streaming: bool = False
    holdout_documents: int = 500
    reading: Reading = DEFAULT

    def __post_init__(self) -> None:
        for source in (self.source, self.validation_source):
            if source is not None:
                check_source(source, self.validation_fraction, self.test_fraction)
        if self.document_separator == "":
            raise InputError(r"document_separator is empty: give what separates documents, such as \n\n, or null")
        for name in ("max_documents", "holdout_documents"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: it must be at least 1")

    @property
    def label(self) -> str:
        """The source, for people."""
        return label_of(self.source)

    def fingerprint(self) -> str:
        """Hash the arguments and the files' names, sizes and times: equal while nothing has changed."""
        return fingerprint(asdict(self), [*_files(self.source), *_files(self.validation_source or EMBEDDED)])

    def sizes(self) -> str:
        """Tell the hub dataset, or the bytes in each of the files: what is known of a stream without reading it."""
        return json.dumps([self.name, self.revision, [file.stat().st_size for file in _files(self.source)]])

    def splits(self, cache_dir: Path) -> Splits:
        """Read the documents of each split, with the one column ``text``."""
        found = self._load(self.source, cache_dir)
        if self.validation_source is not None:
            held_out = self._load(self.validation_source, cache_dir)
            found["validation"] = held_out.get("validation", held_out["train"])
        if self.streaming:
            return self._hold_out(found)
        return self._cut(found)

    def _load(self, source: str | list[str], cache_dir: Path) -> Splits:
        from datasets import Dataset

        if source == EMBEDDED:
            articles = with_progress(embedded.articles(), "reading the articles of the embedded corpus")
            rows = [f"{title}\n{text}" for title, text in articles]
            return self._checked({"train": Dataset.from_dict({self.text_column: rows})}, "the embedded corpus")
        located = locate(source)
        if located.kind == "text":
            by_split = split_files(located.files, located.label)
            found = {split: self._texts(files) for split, files in by_split.items()}
        else:
            found = load_rows(
                located,
                cache_dir,
                self.reading,
                (self.text_column,),
                name=self.name,
                revision=self.revision,
                streaming=self.streaming,
            )
        return self._checked(found, located.label)

    def _texts(self, files: list[Path]) -> Any:
        """Open the documents of text files, without those that are not in the encoding."""
        if not self.streaming:
            return TextFiles.open(files, self.document_separator, self.reading)
        from datasets import IterableDataset

        shape = {"separator": self.document_separator, "reading": self.reading, "column": self.text_column}
        return IterableDataset.from_generator(stream_documents, gen_kwargs={"files": files, **shape})

    def _checked(self, found: Splits, source: str) -> Splits:
        """Name the splits as usual, with the text column alone, named ``text``."""
        from datasets import Value

        splits = split_parts(found, source)
        for name, split in splits.items():
            if isinstance(split, TextFiles):
                continue
            check_columns(source, split, [self.text_column])
            if split.features and split.features[self.text_column] not in (Value("string"), Value("large_string")):
                raise InputError(f"column {self.text_column!r} of {source} holds no text: name another text_column")
            split = split.select_columns([self.text_column])
            splits[name] = split if self.text_column == "text" else split.rename_column(self.text_column, "text")
        if self.max_documents is not None:
            train = splits["train"]
            n = min(self.max_documents, len(train)) if hasattr(train, "__len__") else self.max_documents
            splits["train"] = train.take(n)
        return splits

    def _hold_out(self, splits: Splits) -> Splits:
        stream, n = splits["train"], self.holdout_documents
        if hasattr(stream, "__len__"):  # in memory, or on the disk
            stream = stream.to_iterable_dataset(max(1, min(len(stream) // SHARD, MOST_SHARDS)))
        fractions = {"validation": self.validation_fraction, "test": self.test_fraction}
        missing = [name for name, wanted in fractions.items() if wanted and name not in splits]
        for i, name in enumerate(missing):
            splits[name] = stream.skip(i * n).take(n) if i else stream.take(n)
        held_out = stream.take(n * len(missing))
        return {**splits, "train": DocumentStream(stream, held_out, is_part=self.max_documents is not None)}

    def _cut(self, splits: Splits) -> Splits:
        fractions = self.validation_fraction, self.test_fraction
        wanted = {name: n for name, n in zip(SPLITS[1:], fractions, strict=True) if n and name not in splits}
        if not wanted:
            return splits
        if len(splits["train"]) * min(wanted.values()) < 1:
            return {**splits, **cut_by_position(Pieces(splits["train"]), wanted)}
        return cut_rows(self.label, splits, *fractions)


def _files(source: str | list[str]) -> dict[Path, str]:
    """List the files of a source; none for the embedded corpus and for the hub."""
    return {} if source == EMBEDDED else files_of(source)


def count(rows: Any) -> int | None:
    """Count the rows of a split; None for a stream, which does not know."""
    return len(rows) if hasattr(rows, "__len__") else None


@dataclass(frozen=True)
class Pieces(Iterable[Piece]):
    """The pieces of the documents of a split, without those that are empty or null; ``malformed`` is told of these."""

    rows: Iterable[dict[str, Any]]
    malformed: Malformed | None = None

    def __iter__(self) -> Iterator[Piece]:
        number, is_first = 1, True
        for row in self.rows:
            text, is_last = row["text"], row.get("is_last", True)
            if is_first and is_last and not (text and text.strip()):
                if self.malformed is not None:
                    self.malformed.add("no text" if text is None else "empty", f"row {number:,}")
            else:
                *begun, end = cut(text)
                yield from begun
                yield Piece(end.text, is_last)
            is_first, number = is_last, number + is_last


def documents(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield the texts of a split that are not empty or null, each as a whole."""
    parts: list[str] = []
    for text, is_last in Pieces(rows):
        parts.append(text)
        if is_last:
            yield "".join(parts)
            parts = []
