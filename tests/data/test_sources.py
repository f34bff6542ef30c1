"""Where files are found, and caches that depend on all that shaped them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from src.data import ClassificationDataModule, LMDataModule, MLMDataModule, TranslationDataModule
from src.data.corpora import Corpus, documents
from src.data.sources import files_of, walk
from src.errors import InputError
from src.tokenization import train_wordpiece

ROWS = [{"text": f"Row {i}. It says more.", "label": "ab"[i % 2], "fr": f"rangée {i}"} for i in range(40)]


def write(path: Path, rows=ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(source, cache) -> list[str]:
    splits = Corpus(source if isinstance(source, list) else str(source)).splits(cache)
    return sorted(text for rows in splits.values() for text in documents(rows))


def test_linked_folders_and_files_are_followed_and_circles_end(tmp_path):
    write(tmp_path / "elsewhere/deep/part.jsonl", ROWS[:20])
    write(tmp_path / "file.jsonl", ROWS[20:])
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "file.jsonl").symlink_to(tmp_path / "file.jsonl")
    (tmp_path / "elsewhere/deep/again").symlink_to(tmp_path / "elsewhere")
    (folder / "round").symlink_to(folder)
    (folder / "dead.jsonl").symlink_to(tmp_path / "nowhere")
    assert [file.name for file in walk(folder)] == ["file.jsonl", "part.jsonl"]
    assert texts(folder, tmp_path / "cache") == sorted(row["text"] for row in ROWS)


@pytest.mark.parametrize("name", ["part[1].jsonl", "[a]/rows.csv", "what?.txt"])
def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if name.endswith("jsonl"):
        write(path)
        write(tmp_path / "part1.jsonl", [{"text": "not this"}])
    else:
        path.write_text("text\nRow 1\n" + "Row 2\n" * 30)
    assert list(files_of(str(path))) == [path]
    found = texts(path, tmp_path / "[cache]")
    assert "not this" not in found
    assert found
    if name.endswith("jsonl"):
        assert list(files_of(str(tmp_path / "part[12].jsonl"))) == [tmp_path / "part1.jsonl"]
        assert texts([str(path)], tmp_path / "cache") == found


def test_a_pattern_that_nothing_matches_is_no_name_of_a_dataset():
    with pytest.raises(InputError, match="there is no file nowhere/"):
        files_of("nowhere/*.parquet.part")


@pytest.mark.parametrize("source", ["", [], [""], ["a.txt", ""]])
def test_a_source_without_a_name_is_refused(source):
    for module in (LMDataModule, MLMDataModule):
        with pytest.raises(InputError, match="the source is "):
            module(source=source)
        with pytest.raises(InputError, match="the source is "):
            module(validation_source=source)


def test_translation_and_classification_refuse_a_source_without_a_name():
    with pytest.raises(InputError, match="the source is ''"):
        TranslationDataModule(source="")
    with pytest.raises(InputError, match="the source is ''"):
        ClassificationDataModule(source="", tokenizer="tokenizer.json")


def test_an_empty_document_separator_is_refused():
    with pytest.raises(InputError, match="document_separator is empty"):
        LMDataModule(document_separator="")


def test_a_folder_that_a_readme_describes_is_read_by_that(tmp_path):
    for name in "ab":
        (tmp_path / "hub" / name).mkdir(parents=True)
        (tmp_path / "hub" / name / "train.csv").write_text("text\n" + f"{name} row\n" * 30)
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.csv\n" for name in "ab")
    (tmp_path / "hub/README.md").write_text(f"---\nconfigs:\n{configs}---\n# A card\n")
    splits = Corpus(str(tmp_path / "hub"), name="b").splits(tmp_path / "cache")
    assert {text for rows in splits.values() for text in documents(rows)} == {"b row"}
    with pytest.raises(InputError, match="hub cannot be read"):
        Corpus(str(tmp_path / "hub")).splits(tmp_path / "cache")


# ---- caches


@pytest.fixture
def tokenizer(tmp_path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    train_wordpiece([f"{row['text']} {row['label']}" for row in ROWS], 90).save(str(folder / "tokenizer.json"))
    return folder


MODULES: dict[str, tuple[type, dict[str, Any]]] = {
    "language modelling": (LMDataModule, {}),
    "masked words": (MLMDataModule, {}),
    "classification": (ClassificationDataModule, {}),
    "translation": (TranslationDataModule, {"source_language": "text", "target_language": "fr"}),
}


@pytest.fixture(params=MODULES)
def kind(request) -> tuple[type, dict[str, Any]]:
    """A data module's class and options."""
    return MODULES[request.param]


def test_the_cache_of_every_data_module_depends_on_all_that_shapes_it(tmp_path, tokenizer, kind):
    module, options = kind
    folder = tmp_path / "rows"
    train = write(folder / "train.jsonl")

    def key(**changes) -> str:
        all_options = {**options, "source": str(folder), "tokenizer": str(tokenizer), **changes}
        return json.dumps(module(**all_options, cache_dir=str(tmp_path / "cache")).cache_key(), sort_keys=True)

    seen = {key()}
    assert key() in seen
    assert key(batch_size=3, seed=5) in seen if module is not TranslationDataModule else key(seed=5) in seen
    steps: list[Callable[[], object]] = [
        lambda: os.utime(train, ns=(1, 1)),  # of the same size, written at another time
        lambda: write(train, ROWS[1:]),
        lambda: write(folder / "dev.jsonl"),
        lambda: (tokenizer / "tokenizer.json").write_text(
            (tokenizer / "tokenizer.json")
            .read_text()
            .replace('"lowercase":true', '"lowercase":false')
            .replace('"lowercase": true', '"lowercase": false')
        ),
    ]
    for step in steps:
        step()
        assert key() not in seen
        seen.add(key())
    for changes in (
        {"strict": True},
        {"max_malformed": 0.1},
        {"delimiter": ";"},
        {"encoding": "cp1252"},
        {"validation_fraction": 0.2},
        {"test_fraction": 0.2},
        {"source": str(train)} if module is not TranslationDataModule else {"max_pairs": 5},
    ):
        assert key(**changes) not in seen
        seen.add(key(**changes))
