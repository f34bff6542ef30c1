"""Documents from anywhere, as splits: HuggingFace `datasets` with one column of text."""

import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.data import wikipedia
from src.data.malformed import Malformed, readable
from src.data.progress import with_progress
from src.errors import InputError
from src.files import check_file, open_binary

Splits = dict[str, Any]  # split -> datasets.Dataset or datasets.IterableDataset

EMBEDDED = "wikipedia"
# how a file is read, by its ending without .gz
FORMATS = {".txt": "text", ".md": "text", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv"}
FORMATS[".parquet"] = "parquet"
# files of a hub-style folder that describe its data
COMPANIONS = {"README.md", "LICENSE.md", "LICENSE.txt", "dataset_infos.json"}
SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "test": "test"}


@dataclass(frozen=True)
class Corpus:
    """Where documents come from and how they are split.

    A text file is one document, or several where ``document_separator`` stands between them. The splits of the source
    are taken where it has them; a folder has those that its files or their folders are named after. What is missing is
    cut out of the training documents: by document, always the same ones whatever the seed of a run; or, where there are
    so few that a split would get none, by position: the last part of each document.

    Args:
        source: ``wikipedia`` (the articles that install with the project); a .txt, .json, .jsonl, .csv, .tsv or
            .parquet file, also .gz, a pattern like ``data/*.jsonl``, or a list of those; a folder of such files, or
            one that ``Dataset.save_to_disk`` wrote; or the name of a dataset on the HuggingFace hub.
        name: configuration of a hub dataset.
        revision: of a hub dataset.
        text_column: the column that holds the text.
        document_separator: what separates the documents of a text file.
        validation_source: files for validation, read like ``source``.
        validation_fraction: share of the documents for validation, where the source has no such split.
        test_fraction: the same for testing; 0 for no test split.
        max_documents: read no more than this many.
        streaming: read training documents as they are needed; the first ``holdout_documents`` are held out.
        holdout_documents: how many a stream gives to each of validation and test.
        strict: refuse malformed rows, instead of leaving them out.
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
    strict: bool = False

    def __post_init__(self) -> None:
        if (
            not 0 <= self.validation_fraction + self.test_fraction < 1
            or min(self.validation_fraction, self.test_fraction) < 0
        ):
            raise InputError(
                f"validation_fraction {self.validation_fraction} and test_fraction {self.test_fraction} "
                "must be at least 0 and leave something to train on"
            )
        for name in ("max_documents", "holdout_documents"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: it must be at least 1")

    @property
    def label(self) -> str:
        """The source, for people."""
        return _label(self.source)

    def fingerprint(self) -> str:
        """A hash of the arguments and of the files' names, sizes and times: equal while nothing has changed.

        Raises:
            InputError: a file is missing.
        """
        files = [*self._files(self.source), *self._files(self.validation_source or EMBEDDED)]
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return hashlib.sha256(json.dumps([asdict(self), stats]).encode()).hexdigest()

    def sizes(self) -> str:
        """Which hub dataset, or the bytes in each of the files: what of a stream can be told without reading it."""
        return json.dumps([self.name, self.revision, [path.stat().st_size for path in self._files(self.source)]])

    @classmethod
    def _files(cls, source: str | list[str]) -> list[Path]:
        """The files of a local source; none for the embedded corpus and for the hub."""
        if isinstance(source, list):
            files = {one: cls._files(one) for one in source}
            if missing := [one for one in source if not files[one]]:
                raise InputError(f"there is no file {missing[0]}: a list of sources must name files or folders")
            return [file for one in source for file in files[one]]
        if source == EMBEDDED:
            return []
        path = Path(source).expanduser()
        if path.is_dir():
            files_in = (file for file in path.rglob("*") if file.is_file())
            found = sorted(file for file in files_in if not _is_hidden(file.relative_to(path)))
            if not found:
                raise InputError(f"the folder {source} is empty: put text, JSON, CSV or Parquet files into it")
            return found
        matches = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor)))) or [path] * path.exists()
        if not matches and (_format(path) or path.is_absolute() or source.startswith(".")):
            raise InputError(f"there is no file {source}: give the path of a text, JSON, CSV or Parquet file")
        return matches

    def splits(self, cache_dir: Path) -> Splits:
        """The documents of each split, with the one column ``text``.

        Raises:
            InputError: a file is missing, empty, not UTF-8 or not what its ending says; there is no such column; or the
                hub cannot be reached.
        """
        found = self._load(self.source, cache_dir)
        if self.validation_source is not None:
            found["validation"] = self._load(self.validation_source, cache_dir)["train"]
        if self.streaming:
            return self._hold_out(found)
        return self._cut(found)

    def _load(self, source: str | list[str], cache_dir: Path) -> Splits:
        from datasets import Dataset

        label = _label(source)
        if source == EMBEDDED:
            articles = with_progress(wikipedia.articles(), "reading the articles of the embedded corpus")
            rows = [f"{title}\n{text}" for title, text in articles]
            return self._checked({"train": Dataset.from_dict({self.text_column: rows})}, "the embedded corpus")
        files = self._files(source)
        if files:
            return self._checked(self._from_files(label, files, cache_dir), label)
        arguments: dict[str, Any] = {"name": self.name, "revision": self.revision, "streaming": self.streaming}
        return self._checked(load_dataset(label, label, cache_dir, **arguments), label)

    def _from_files(self, source: str, files: list[Path], cache_dir: Path) -> Splits:
        folder = Path(source).expanduser()
        if any(file.name in ("dataset_info.json", "dataset_dict.json") for file in files):
            return _from_disk(str(folder))
        if folder.is_dir():
            files = [file for file in files if file.name not in COMPANIONS]
        formats = {file: _format(file) for file in files}
        kinds = sorted({kind for kind in formats.values() if kind})
        if len(kinds) != 1:
            found = f"holds {' and '.join(kinds)} files" if kinds else "is no kind of file that can be read"
            raise InputError(f"{source} {found}: give files of one kind of {', '.join(FORMATS)}")
        files = [file for file in files if formats[file]]
        if kinds[0] == "text":
            return self._from_text(files, has_splits=folder.is_dir())
        malformed = Malformed(source, self.strict)
        checked = {file: self._checked_file(file, kinds[0], cache_dir, malformed) for file in files}
        malformed.announce()
        if folder.is_dir() and list(checked) != list(checked.values()):
            by_split: dict[str, list[str]] = {}
            for file, readable_file in checked.items():
                by_split.setdefault(_split_of(file, folder), []).append(str(readable_file))
            return load_dataset(source, kinds[0], cache_dir, data_files=by_split, streaming=self.streaming)
        files = list(checked.values())
        if folder.is_dir():
            return load_dataset(source, str(folder), cache_dir, name=self.name, streaming=self.streaming)
        extra = {"sep": "\t"} if files[0].name.removesuffix(".gz").endswith(".tsv") else {}
        paths = [str(file) for file in files]
        return load_dataset(source, kinds[0], cache_dir, data_files=paths, streaming=self.streaming, **extra)

    def _checked_file(self, file: Path, kind: str, cache_dir: Path, malformed: Malformed) -> Path:
        check_file(file, is_text=False)
        if kind == "parquet":
            return file
        try:
            found = readable(file, kind, (self.text_column,), cache_dir, malformed)
        except (OSError, EOFError, zlib.error):  # a damaged .gz
            found = file
        check_file(found, is_text=True)
        return found

    def _from_text(self, files: list[Path], has_splits: bool) -> Splits:
        from datasets import Dataset

        texts: dict[str, list[str]] = {}
        for file in files:
            split = SPLIT_NAMES.get(file.name.partition(".")[0], "train") if has_splits else "train"
            texts.setdefault(split, []).extend(self._texts(file))
        return {split: Dataset.from_dict({self.text_column: parts}) for split, parts in texts.items()}

    def _texts(self, file: Path) -> list[str]:
        """The documents of a text file, without those that are not UTF-8."""
        check_file(file, is_text=self.document_separator is None)
        try:
            with open_binary(file) as opened:
                content = opened.read()
        except (OSError, EOFError, zlib.error):  # a damaged .gz
            check_file(file, is_text=True)
            raise
        if self.document_separator is None:
            return [content.decode("utf-8")]
        malformed, texts = Malformed(str(file), self.strict), []
        for i, part in enumerate(content.split(self.document_separator.encode()), start=1):
            try:
                texts.append(part.decode("utf-8"))
            except UnicodeDecodeError:
                malformed.add("invalid UTF-8", f"document {i:,}", part.decode("utf-8", errors="replace").strip())
        malformed.announce()
        if not texts:
            check_file(file, is_text=True)
        return texts

    def _checked(self, found: Splits, source: str) -> Splits:
        """The splits by their usual names, with the text column alone and by the name of ``text``."""
        from datasets import Value

        splits = {SPLIT_NAMES[name]: split for name, split in found.items() if name in SPLIT_NAMES}
        if "train" not in splits:
            if len(found) != 1:
                raise InputError(f"{source} has the splits {', '.join(found)}: one of them must be 'train'")
            splits = {"train": next(iter(found.values()))}
        for name, split in splits.items():
            columns = split.column_names or list(next(iter(split), {}))
            if self.text_column not in columns:
                raise InputError(f"{source} has no column {self.text_column!r}: it has {', '.join(columns)}")
            if split.features and split.features[self.text_column] not in (Value("string"), Value("large_string")):
                raise InputError(f"column {self.text_column!r} of {source} holds no text: name another text_column")
            split = split.select_columns([self.text_column])
            splits[name] = split if self.text_column == "text" else split.rename_column(self.text_column, "text")
        if self.max_documents is not None:
            train = splits["train"]
            splits["train"] = (
                train.take(self.max_documents)
                if self.streaming and not hasattr(train, "__len__")
                else train.select(range(min(self.max_documents, len(train))))
            )
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
        wanted = {"validation": self.validation_fraction, "test": self.test_fraction}
        wanted = {name: share for name, share in wanted.items() if share and name not in splits}
        if not wanted:
            return splits
        train = splits["train"]
        if len(train) * min(wanted.values()) < 1:
            return {**splits, **_cut_by_position(list(documents(train)), wanted)}
        order = np.random.default_rng(0).permutation(len(train))  # not the run's seed: runs must compare
        for name, share in wanted.items():
            n = round(len(train) * share)
            splits[name], order = train.select(np.sort(order[:n])), order[n:]
        return {**splits, "train": train.select(np.sort(order))}


def _cut_by_position(documents: list[str], wanted: dict[str, float]) -> Splits:
    """Training text from the front of each document, then validation, then test."""
    from datasets import Dataset

    shares = {"train": 1 - sum(wanted.values()), **wanted}
    parts: dict[str, list[str]] = {name: [] for name in shares}
    for document in documents:
        start, share = 0, 0.0
        for name in shares:
            share += shares[name]
            end = int(round(len(document) * share, 6))
            parts[name].append(document[start:end])
            start = end
    return {name: Dataset.from_dict({"text": texts}) for name, texts in parts.items()}


def _format(path: Path) -> str | None:
    name = path.name.removesuffix(".gz")
    return FORMATS.get(Path(name).suffix.lower())


def _label(source: str | list[str]) -> str:
    return source if isinstance(source, str) else ", ".join(source)


def _split_of(file: Path, folder: Path) -> str:
    """The split that a file or one of its folders is named after."""
    names = [*file.relative_to(folder).parent.parts, file.name.partition(".")[0]]
    words = [word for name in names for word in re.split(r"[^a-z]+", name.lower())]
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "train")


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _from_disk(source: str) -> Splits:
    from datasets import DatasetDict, load_from_disk

    loaded = load_from_disk(source)
    return dict(loaded) if isinstance(loaded, DatasetDict) else {"train": loaded}


def load_dataset(source: str, path: str, cache_dir: Path, **arguments: Any) -> Splits:
    """`datasets.load_dataset`, whose many errors become one line."""
    import datasets
    import huggingface_hub

    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    huggingface_hub.utils.logging.set_verbosity_error()
    try:
        return dict(datasets.load_dataset(path, cache_dir=str(cache_dir / "datasets"), **arguments))
    except (datasets.exceptions.DatasetsError, ConnectionError, OSError, ValueError) as error:
        reason = (str(error.__cause__ or "") or str(error) or type(error).__name__).strip().splitlines()[0]
        is_local = "data_files" in arguments or Path(path).exists()
        problem = "cannot be read" if is_local else "is no local file or folder, and the hub does not give it"
        raise InputError(f"{source} {problem}: {reason}") from error


def documents(split: Any, malformed: Malformed | None = None) -> Iterator[str]:
    """The texts of a split that are not empty or null; of the others ``malformed`` is told."""
    for i, row in enumerate(split, start=1):
        text = row["text"]
        if text and text.strip():
            yield text
        elif malformed is not None:
            malformed.add("null" if text is None else "empty", f"row {i:,}")
