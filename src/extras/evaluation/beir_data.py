"""Collections of BEIR (Thakur et al. 2021): documents, queries and relevance, in its own format and in the hub's."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from src.data.malformed import DEFAULT
from src.data.sources import (
    Source,
    check_columns,
    config_names,
    fingerprint,
    format_of,
    kind_for_datasets,
    load_rows,
    walk,
)
from src.errors import InputError
from src.files import check_file, read_lines

CACHE = Path(".cache")
NANOBEIR = tuple(
    f"zeta-alpha-ai/Nano{name}"
    for name in (
        *("ArguAna", "ClimateFEVER", "DBPedia", "FEVER", "FiQA2018", "HotpotQA", "MSMARCO", "NFCorpus", "NQ"),
        *("QuoraRetrieval", "SCIDOCS", "SciFact", "Touche2020"),
    )
)
IDS = ("query-id", "corpus-id")
Rows = Iterator[tuple[str, dict[str, Any]]]  # each with where it stands


class Collection(NamedTuple):
    """Documents and queries by their ids, and the relevance of judged documents, above 0 for some, by query."""

    documents: dict[str, str]
    queries: dict[str, str]
    relevance: dict[str, dict[str, int]]


def find_collections(given: str) -> list[str]:
    """Find the collections that a name means: a folder or the folders in it, or a dataset on the hub."""
    folder = Path(given).expanduser()
    if not folder.is_dir():
        if folder.is_absolute() or folder.exists() or given.startswith(".") or "/" not in given:
            raise InputError(f"there is no folder {given}: give one in BEIR's format, or a dataset of the hub's")
        return [given]
    found = [str(one) for one in (folder, *sorted(folder.iterdir())) if one.is_dir() and _has_corpus(one)]
    if not found:
        raise InputError(f"{given} has no corpus.jsonl, and no folder in it has: give a folder in BEIR's format")
    return found[:1] if found[0] == str(folder) else found


def _has_corpus(folder: Path) -> bool:
    return bool(_files(folder, "corpus")) or "corpus" in _configs(str(folder))


def _configs(source: str) -> list[str]:
    """List the configurations of a dataset on the hub, or those that the README of its copy describes."""
    folder = Path(source).expanduser()
    return config_names(source) if not folder.is_dir() or kind_for_datasets(folder, ()) == "described" else []


def _files(folder: Path, table: str) -> dict[str, list[Path]]:
    """List the files of a table by what their names begin with: ``qrels/test.tsv``, ``qrels/train-0-of-1.parquet``."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob(f"{table}.*")) or sorted((folder / table).glob("*")):
        if format_of(path) in ("json", "csv", "parquet"):
            found.setdefault(re.split(r"[.-]", path.name)[0], []).append(path)
    return found


def check_collection(source: str, split: str | None) -> str:
    """Refuse a collection in which something is missing, and hash what shapes it."""
    folder, configs = Path(source).expanduser(), _configs(source)
    if "corpus" in configs:
        name, _ = _dataset(source, "qrels", configs)
        files = [file for one in {source, name} for file in walk(Path(one).expanduser())]  # none of the hub
        return fingerprint({"source": source, "split": split}, files)
    if not folder.is_dir():
        raise InputError(f"{source} has no configuration 'corpus', and is no dataset in BEIR's format")
    files = [file for table in ("corpus", "queries") for one in _files(folder, table).values() for file in one]
    if not _files(folder, "queries"):
        raise InputError(f"{folder} has no queries.jsonl")
    judged = _files(folder, "qrels") or _files(folder.parent, f"{folder.name}-qrels")
    files += judged[_choose(source, judged, split)]
    for file in files:
        check_file(file, is_text=format_of(file) != "parquet")
    return fingerprint({}, files)


def _dataset(source: str, table: str, configs: list[str]) -> tuple[str, str | None]:
    """Name the dataset of a table, and its configuration.

    BEIR has relevance in a dataset of its own, ``BeIR/scifact-qrels``; mteb in the configuration ``default``.
    """
    if table in configs:
        return source, table
    if table == "qrels" and "default" in configs:
        return source, "default"
    name = f"{source}-{table}"
    if Path(source).expanduser().is_dir() and not Path(name).expanduser().is_dir():
        raise InputError(f"{source} has no {table}: its README describes {', '.join(configs)}, and there is no {name}")
    return name, None


def _choose(source: str, splits: Mapping[str, Any], split: str | None) -> str:
    """Choose a split of the relevance: the one that was asked for, ``test``, or the only one there is."""
    chosen = split or ("test" if len(splits) != 1 else next(iter(splits)))
    if chosen not in splits:
        raise InputError(f"{source} has no qrels for the split {chosen!r}: it has {', '.join(splits) or 'none'}")
    return chosen


def read_collection(source: str, split: str | None = None) -> Collection:
    """Read a collection; queries of which no document is relevant are left out, as trec_eval does."""
    documents = {i: f"{row.get('title') or ''} {row['text']}".strip() for i, row in _texts(source, "corpus")}
    queries = {i: row["text"] for i, row in _texts(source, "queries")}
    relevance: dict[str, dict[str, int]] = {}
    splits = _splits(source, "qrels")
    for where, row in splits[_choose(source, splits, split)]:
        query, document, score = (str(row.get(name)) for name in (*IDS, "score"))
        for what, key, known in (("query", query, queries), ("document", document, documents)):
            if key not in known:
                raise InputError(f"{where} names the {what} {key!r}, which is not in {source}")
        if "score" in row and not score.lstrip("-").isdigit():
            raise InputError(f"{where} has no score that is a whole number: {score!r}")
        relevance.setdefault(query, {})[document] = int(score) if "score" in row else 1  # NanoBEIR has none
    relevance = {query: judged for query, judged in relevance.items() if any(score > 0 for score in judged.values())}
    if not relevance:
        raise InputError(f"the qrels of {source} name no relevant document")
    return Collection(documents, queries, relevance)


def _texts(source: str, table: str) -> Rows:
    """Yield the rows of texts by their ids."""
    for rows in _splits(source, table).values():
        for where, row in rows:
            if row.get("_id") is None or not isinstance(row.get("text"), str):
                raise InputError(f"{where} has no _id, or no text: {str(row)[:60]}")
            yield str(row["_id"]), row


def _splits(source: str, table: str) -> dict[str, Rows]:
    """Read a table of a collection by its splits, each row with where it stands."""
    configs, folder = _configs(source), Path(source).expanduser()
    columns = IDS if table == "qrels" else ("_id", "text")
    if "corpus" not in configs:
        files = _files(folder, table) or _files(folder.parent, f"{folder.name}-{table}")
        return {split: _rows_of(of_split, columns) for split, of_split in files.items()}
    name, config = _dataset(source, table, configs)
    found = Source(name, {Path(name): name}, "described") if folder.is_dir() else Source(name, {}, "hub")
    parts = load_rows(found, CACHE, DEFAULT, columns, name=config)
    return {split: _rows_of_dataset(f"the {table} of {name}", rows, columns) for split, rows in parts.items()}


def _rows_of_dataset(label: str, rows: Any, columns: tuple[str, ...]) -> Rows:
    check_columns(label, rows, columns)
    yield from ((f"row {number:,} of {label}", row) for number, row in enumerate(rows, 1))


def _rows_of(files: list[Path], columns: tuple[str, ...]) -> Rows:
    """Read files one after the other: Parquet, JSON lines, or a table with tabs and a header."""
    for path in files:
        if format_of(path) == "parquet":
            parts = load_rows(Source(str(path), {path: path.name}, "parquet"), CACHE, DEFAULT, columns)
            for rows in parts.values():
                yield from _rows_of_dataset(str(path), rows, columns)
            continue
        lines = ((f"line {number:,} of {path}", line) for number, line in enumerate(read_lines(path), 1))
        yield from _json_rows(lines) if format_of(path) == "json" else _table_rows(lines, columns)


def _json_rows(lines: Iterator[tuple[str, str]]) -> Rows:
    for where, line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where} is no JSON: {line[:60]}") from error
        if not isinstance(row, dict):
            raise InputError(f"{where} is no JSON object: {line[:60]}")
        yield where, row


def _table_rows(lines: Iterator[tuple[str, str]], columns: tuple[str, ...]) -> Rows:
    header: list[str] = []
    for where, line in lines:
        row = line.split("\t")
        if not header:
            header = row
            if missing := [name for name in columns if name not in header]:
                raise InputError(f"{where} has no column {missing[0]!r}: it has {', '.join(header)}")
        elif line:
            if len(row) != len(header):
                raise InputError(f"{where} is not {', '.join(header)} by tabs: {line[:60]}")
            yield where, dict(zip(header, row, strict=True))
