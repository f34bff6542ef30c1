"""Documents from anywhere, as splits: HuggingFace `datasets` with one column of text."""

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from src.data import embedded
from src.data.malformed import DEFAULT, Malformed, Reading
from src.data.progress import announce, with_progress
from src.data.sources import check_columns, check_source, files_of, fingerprint, label_of, load_rows, locate
from src.data.splits import SPLITS, cut_by_position, cut_rows, split_files, split_parts
from src.errors import InputError
from src.files import UTF8, check_file, decode, encoding_name, is_text, open_binary, printable, unescaped

Splits = dict[str, Any]  # split -> datasets.Dataset or datasets.IterableDataset

EMBEDDED = "wikipedia"


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
        streaming: read training documents as they are needed; the first ``holdout_documents`` are held out.
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
            files = split_files(located.files, located.label)
            texts = {split: [text for file in files[split] for text in self._texts(file)] for split in files}
            found = {split: Dataset.from_dict({self.text_column: parts}) for split, parts in texts.items()}
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

    def _texts(self, file: Path) -> list[str]:
        """Read the documents of a text file, without those that are not in its encoding."""
        encoding = self.reading.encoding or UTF8
        check_file(file, is_text=self.document_separator is None, encoding=encoding)
        try:
            with open_binary(file) as opened:
                content = decode(opened.read(), encoding)
        except (OSError, EOFError, zlib.error):  # a damaged .gz
            check_file(file, is_text=True)
            raise
        if self.document_separator is None:
            return [content]
        separator = re.escape(unescaped(self.document_separator)).replace("\\\n", "\r?\n")
        parts = re.split(separator, content)
        if len(parts) == 1:
            announce(f"{file} has no document_separator {self.document_separator!r}: it is one document")
        malformed, texts = Malformed(str(file), self.reading), []
        for i, part in enumerate(parts, start=1):
            if is_text(part):
                texts.append(part)
            else:
                malformed.add(f"invalid {encoding_name(encoding)}", f"document {i:,}", printable(part))
        malformed.announce(of=len(parts))
        return texts

    def _checked(self, found: Splits, source: str) -> Splits:
        """Name the splits as usual, with the text column alone, named ``text``."""
        from datasets import Value

        splits = split_parts(found, source)
        for name, split in splits.items():
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
        if hasattr(stream, "__len__"):  # a text file or the embedded corpus is in memory anyway
            stream = stream.to_iterable_dataset()
        for name, wanted in (("validation", self.validation_fraction), ("test", self.test_fraction)):
            if name not in splits and wanted:
                splits[name], stream = stream.take(n), stream.skip(n)
        return {**splits, "train": stream}

    def _cut(self, splits: Splits) -> Splits:
        fractions = self.validation_fraction, self.test_fraction
        wanted = {name: n for name, n in zip(SPLITS[1:], fractions, strict=True) if n and name not in splits}
        if not wanted:
            return splits
        if len(splits["train"]) * min(wanted.values()) < 1:
            return {**splits, **cut_by_position(list(documents(splits["train"])), wanted)}
        return cut_rows(self.label, splits, *fractions)


def _files(source: str | list[str]) -> dict[Path, str]:
    """List the files of a source; none for the embedded corpus and for the hub."""
    return {} if source == EMBEDDED else files_of(source)


def count(split: Any) -> int | None:
    """Count the rows of a split; None for a stream, which does not know."""
    return len(split) if hasattr(split, "__len__") else None


def documents(split: Any, malformed: Malformed | None = None) -> Iterator[str]:
    """Yield the texts of a split that are not empty or null; tell ``malformed`` of the others."""
    for i, row in enumerate(split, start=1):
        text = row["text"]
        if text and text.strip():
            yield text
        elif malformed is not None:
            malformed.add("null" if text is None else "empty", f"row {i:,}")
