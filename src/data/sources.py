"""Where rows come from: files, patterns, folders, what `datasets` saved, and the HuggingFace hub."""

import glob
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from src.data.json_rows import fields_of, json_list, json_rows, readable_json
from src.data.malformed import DEFAULT, Malformed, Reading, Row, encoding_of
from src.data.progress import announce
from src.data.splits import cut_rows, split_files, split_parts
from src.data.tables import SURVEYED, check_names, dialect_of, readable_table, table_rows
from src.errors import InputError
from src.files import check_file, printable

Parts = dict[str, Any]  # name -> datasets.Dataset or datasets.IterableDataset

FORMAT = 1  # of what is read out of a source; counted up when that changes
# how a file is read, by its ending without .gz
FORMATS = {".txt": "text", ".md": "text", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv"}
FORMATS[".parquet"] = "parquet"
# files of a hub-style folder that describe its data
COMPANIONS = {"README.md", "LICENSE.md", "LICENSE.txt", "dataset_infos.json"}
SAVED = {"dataset_info.json", "dataset_dict.json"}  # files of a folder that `Dataset.save_to_disk` wrote


class Source(NamedTuple):
    """A source that was found: what it is called, its files with their names in it, and what they are.

    The kind is ``text``, ``json``, ``csv`` or ``parquet``; ``saved`` by `datasets`; ``described`` by the README of a
    folder; or ``hub``, without files.
    """

    label: str
    files: dict[Path, str]
    kind: str


def format_of(path: Path) -> str | None:
    """Tell how a file is read, by its ending, in capitals or not; None where it cannot be."""
    return FORMATS.get(Path(path.name.lower().removesuffix(".gz")).suffix)


def walk(folder: Path) -> list[Path]:
    """List the files of a folder and of those in it, without hidden ones; symbolic links are followed."""
    found, seen = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(parent))
        # a link to a folder that is read already leads round in a circle
        folders[:] = [
            name
            for name in folders
            if name[0] != "." and os.path.realpath(os.path.join(parent, name)) not in seen  # noqa: PTH118
        ]
        found += [file for name in names if name[0] != "." and (file := Path(parent, name)).is_file()]
    return sorted(found)


def check_source(source: str | list[str], validation_fraction: float, test_fraction: float) -> None:
    """Refuse a source without a name, and fractions for validation and test that leave nothing to train on."""
    names = [source] if isinstance(source, str) else source
    if not names or not all(names):
        raise InputError(f"the source is {source!r}: name a file, a folder, or a dataset on the hub")
    if min(validation_fraction, test_fraction) < 0 or validation_fraction + test_fraction >= 1:
        raise InputError(
            f"validation_fraction {validation_fraction} and test_fraction {test_fraction} must be at least 0 and leave "
            "something to train on"
        )


def files_of(source: str | list[str]) -> dict[Path, str]:
    """List the files of a local source, with their names in it; none where it is the name of a dataset on the hub."""
    if isinstance(source, list):
        files = {one: files_of(one) for one in source}
        if missing := [one for one in source if not files[one]]:
            raise InputError(f"there is no file {missing[0]}: a list of sources must name files or folders")
        return {file: name for one in source for file, name in files[one].items()}
    path = Path(source).expanduser()
    if path.is_dir():
        if not (found := walk(path)):
            raise InputError(f"the folder {source} is empty: put text, JSON, CSV or Parquet files into it")
        return {file: file.relative_to(path).as_posix() for file in found}
    if path.exists():  # before it is a pattern: a name may have brackets
        return {path: path.name}
    matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file())  # noqa: PTH207
    if not matches and (format_of(path) or path.is_absolute() or source.startswith(".") or glob.has_magic(source)):
        raise InputError(f"there is no file {source}: give the path of a text, JSON, CSV or Parquet file")
    fixed = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
    return {file: file.relative_to(fixed).as_posix() for file in matches}


def locate(source: str | list[str]) -> Source:
    """Find a source, and say what it is."""
    label = label_of(source)
    files = files_of(source)
    folder = Path(label).expanduser()
    if kind := kind_for_datasets(folder, files) if files else "hub":
        return Source(label, files, kind)
    if folder.is_dir():
        files = {file: name for file, name in files.items() if file.name not in COMPANIONS}
    formats = {file: format_of(file) for file in files}
    kinds = sorted({kind for kind in formats.values() if kind})
    if len(kinds) != 1:
        found = f"holds {' and '.join(kinds)} files" if kinds else "is no kind of file that can be read"
        raise InputError(f"{label} {found}: give files of one kind of {', '.join(FORMATS)}")
    if strange := [files[file] for file, kind in formats.items() if kind is None]:
        announce(f"not used of {label}: {strange[0]}" + (f" and {len(strange) - 1:,} more" if strange[1:] else ""))
    return Source(label, {file: name for file, name in files.items() if formats[file]}, kinds[0])


def label_of(source: str | list[str]) -> str:
    """Name a source for people."""
    return source if isinstance(source, str) else ", ".join(source)


def kind_for_datasets(folder: Path, files: Iterable[Path]) -> str | None:
    """Tell whether `datasets` reads a folder itself: ``saved`` by it, or ``described`` by a README as on the hub."""
    if any(file.name in SAVED for file in files):
        return "saved"
    readme = folder / "README.md"
    if not readme.is_file():
        return None
    _, *described = readme.read_text(encoding="utf-8", errors="replace").split("---\n")
    has_configs = len(described) > 1 and any(line.startswith("configs:") for line in described[0].split("\n"))
    return "described" if has_configs else None


def fingerprint(arguments: dict[str, Any], files: Iterable[Path]) -> str:
    """Hash all that shapes what is read: arguments, and the names, sizes and times of files.

    Equal while nothing has changed; every cache of what was read has it in its key.
    """
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([FORMAT, arguments, stats]).encode()).hexdigest()


def load_rows(
    source: Source,
    cache_dir: Path,
    reading: Reading,
    columns: tuple[str, ...],
    texts: tuple[str, ...] | None = None,
    *,
    name: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
) -> Parts:
    """Read the rows of a source by its own names for its parts; files are split by their names.

    Of files, malformed rows are left out: those that are not in the encoding, no JSON, of the wrong type in a column of
    text, and rows of a table with another number of fields than its header or a quote that nothing closes. Null and
    empty texts are read, and left out later.

    Args:
        source: with columns.
        cache_dir: where prepared data lie.
        reading: how files are read.
        columns: that are needed.
        texts: those of them that must be text; all if None.
        name: configuration of a hub dataset, or of a folder that a README describes.
        revision: of a hub dataset.
        streaming: read rows as they are needed.
    """
    if source.kind == "saved":
        return _from_disk(source.label)
    if source.kind in ("hub", "described"):
        path = str(Path(source.label).expanduser()) if source.files else source.label
        return _load_dataset(source.label, path, cache_dir, name=name, revision=revision, streaming=streaming)
    if source.kind == "text":
        raise InputError(f"{source.label} has no columns: give .csv, .tsv, .json, .jsonl or .parquet files")

    by_split = split_files(source.files, source.label)
    if streaming and source.kind != "parquet":
        from datasets import IterableDataset

        for file in source.files:
            check_file(file, is_text=False)
        shape = {
            "kind": source.kind,
            "columns": columns,
            "texts": columns if texts is None else texts,
            "reading": reading,
        }
        return {
            split: IterableDataset.from_generator(_stream_rows, gen_kwargs={"files": files, **shape})
            for split, files in by_split.items()
        }

    def readable(file: Path) -> str:
        check_file(file, is_text=False)
        try:
            if source.kind == "json":
                found = readable_json(file, columns, columns if texts is None else texts, reading, cache_dir)
            else:
                found = readable_table(file, columns, reading, cache_dir) if source.kind == "csv" else file
        except (OSError, EOFError, zlib.error, UnicodeError) as error:  # a damaged .gz, or half a character of UTF-16
            raise InputError(f"the file {file} cannot be read: {error}") from error
        return glob.escape(str(found))  # `datasets` takes brackets for a pattern

    data_files = {split: [readable(file) for file in files] for split, files in by_split.items()}
    builder = "json" if source.kind == "json" else "parquet"
    return _load_dataset(source.label, builder, cache_dir, data_files=data_files, streaming=streaming)


def _from_disk(source: str) -> Parts:
    from datasets import DatasetDict, load_from_disk

    try:
        loaded = load_from_disk(str(Path(source).expanduser()))
    except (OSError, ValueError) as error:
        raise InputError(f"{source} cannot be read: {_first_line(error)}") from error
    return dict(loaded) if isinstance(loaded, DatasetDict) else {"train": loaded}


def _load_dataset(source: str, path: str, cache_dir: Path, **arguments: Any) -> Parts:
    """Call `datasets.load_dataset`, quietly."""
    import datasets

    with _in_one_line(source, is_local="data_files" in arguments or Path(path).exists()):
        return dict(datasets.load_dataset(path, cache_dir=str(cache_dir / "datasets"), **arguments))


def config_names(source: str) -> list[str]:
    """List the configurations of a dataset on the hub, or of a folder that a README describes."""
    import datasets

    path = Path(source).expanduser()
    with _in_one_line(source, is_local=path.exists()):
        return datasets.get_dataset_config_names(str(path) if path.exists() else source)


@contextmanager
def _in_one_line(source: str, is_local: bool) -> Iterator[None]:
    """Silence `datasets`, and make one line of its many errors."""
    import datasets
    import huggingface_hub

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    huggingface_hub.utils.logging.set_verbosity_error()
    try:
        yield
    except (datasets.exceptions.DatasetsError, ConnectionError, OSError, ValueError) as error:
        problem = "cannot be read" if is_local else "is no local file or folder, and the hub does not give it"
        raise InputError(f"{source} {problem}: {_first_line(error.__cause__ or error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().split("\n")[0]


def check_columns(source: str, rows: Any, columns: Iterable[str]) -> None:
    """Refuse rows without one of some columns."""
    check_names(source, rows.column_names or list(next(iter(rows), {})), columns)


@dataclass(frozen=True)
class TableSource:
    """Rows with columns, and how they are split.

    The splits of the source are taken where it has them. What is missing is cut out of the training rows, always the
    same ones whatever the seed of a run.

    Args:
        source: a .csv, .tsv, .json, .jsonl or .parquet file, a folder of those, or a dataset on the HuggingFace hub.
        name: configuration of a hub dataset.
        texts: the columns that hold text.
        validation_fraction: fraction of the rows for validation, where the source has no such split.
        test_fraction: the same for testing.
        reading: how files are read, and what is done about malformed rows.
    """

    source: str
    name: str | None
    texts: tuple[str, ...]
    validation_fraction: float
    test_fraction: float
    reading: Reading = DEFAULT

    def __post_init__(self) -> None:
        check_source(self.source, self.validation_fraction, self.test_fraction)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that a row must have."""
        return self.texts

    def fingerprint(self) -> str:
        """Hash the arguments and the names, sizes and times of the files: equal while nothing has changed."""
        return fingerprint(asdict(self), files_of(self.source))

    def load(self, cache_dir: Path) -> Parts:
        """Read the parts of the source by its own names for them."""
        return load_rows(locate(self.source), cache_dir, self.reading, self.columns, self.texts, name=self.name)

    def splits(self, cache_dir: Path) -> dict[str, Any]:
        """Read the rows of each split, all of them with the columns that they must have."""
        found = split_parts(self.load(cache_dir), self.source)
        for rows in found.values():
            check_columns(self.source, rows, self.columns)
        texts = (hash(str(row)) for row in zip(*(found["train"][name] for name in self.texts), strict=True))
        labels = self.labels(found["train"])
        return cut_rows(self.source, found, self.validation_fraction, self.test_fraction, texts, labels)

    def labels(self, rows: Any) -> Iterable[str]:
        """Give the label of each row, where rows have one."""
        return ()


def _stream_rows(
    files: list[Path], kind: str, columns: tuple[str, ...], texts: tuple[str, ...], reading: Reading
) -> Iterator[dict[str, Any]]:
    """Yield some columns of the rows of tables or of JSON without looking ahead; of a table's dialect :data:`SURVEYED`
    rows tell.

    Malformed rows are left out, and told at the end of each file.
    """
    for file in files:
        malformed, count, is_first = Malformed(str(file), reading), 0, True
        for count, row in enumerate(_rows(file, kind, columns, texts, reading), start=1):  # noqa: B007
            if row.reason is None:
                fields = fields_of(row.value)
                # the first row tells which columns there are
                yield fields if is_first else {column: fields.get(column) for column in columns}
                is_first = False
            else:
                malformed.add(row.reason, f"row {row.number:,}", printable(row.raw))
        for line in malformed.report(of=count):
            print(line)


def _rows(file: Path, kind: str, columns: tuple[str, ...], texts: tuple[str, ...], reading: Reading) -> Iterator[Row]:
    if kind == "json":
        encoding = encoding_of(file, reading)
        yield from json_rows(file, json_list(file, columns, encoding), texts, encoding)
        return
    rows = table_rows(file, dialect_of(file, columns, reading, SURVEYED))
    header = next(rows).value
    yield from (row._replace(value=dict(zip(header, row.value, strict=False))) for row in rows)
