"""Documents from every kind of source, their splits, and refusals that name the culprit."""

import gzip
import json
from itertools import combinations
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from src.data.corpora import Corpus, documents
from src.errors import InputError

TEXTS = [f"Document {i}, with a comma,\tand “quotes”.\nIt has two lines." for i in range(40)]
ROWS = [{"text": text, "id": i} for i, text in enumerate(TEXTS)]


def write(path: Path, rows=ROWS) -> Path:
    """The rows in the format that the name says."""
    ending = path.name.removesuffix(".gz").rpartition(".")[2]
    data = Dataset.from_list(rows)
    plain = path.with_name(path.name.removesuffix(".gz"))
    if ending == "jsonl":
        plain.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif ending == "json":
        plain.write_text(json.dumps(rows), encoding="utf-8")
    elif ending == "parquet":
        data.to_parquet(plain)
    elif ending in ("csv", "tsv"):
        data.to_csv(plain, sep="\t" if ending == "tsv" else ",")
    else:
        plain.write_text("%".join(row["text"] for row in rows), encoding="utf-8")
    if plain != path:
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    return path


@pytest.fixture
def load(tmp_path: Path):
    """The texts of each split of a source."""

    def texts(source, **options) -> dict[str, list[str]]:
        source = source if isinstance(source, list) else str(source)
        corpus = Corpus(source, **options)
        corpus.fingerprint()
        return {split: list(documents(rows)) for split, rows in corpus.splits(tmp_path / "cache").items()}

    return texts


def together(splits: dict[str, list[str]]) -> list[str]:
    return sorted(text for texts in splits.values() for text in texts)


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet", "txt", "jsonl.gz", "csv.gz", "txt.gz"])
@pytest.mark.parametrize("streaming", [False, True])
def test_every_format_gives_the_same_documents(tmp_path, load, ending, streaming):
    path = write(tmp_path / f"corpus.{ending}")
    splits = load(path, document_separator="%", streaming=streaming, holdout_documents=2)
    assert {split: len(texts) for split, texts in splits.items()} == {"train": 36, "validation": 2, "test": 2}
    assert together(splits) == sorted(TEXTS)
    for one, other in combinations(splits.values(), 2):
        assert not set(one) & set(other)


def test_the_splits_are_the_same_each_time_and_not_the_first_documents(tmp_path, load):
    path = write(tmp_path / "corpus.jsonl")
    splits = load(path, validation_fraction=0.25)
    assert splits == load(path, validation_fraction=0.25)
    assert len(splits["validation"]) == 10
    assert splits["validation"] not in (TEXTS[:10], TEXTS[-10:])


@pytest.mark.parametrize("pattern", ["part*.jsonl", "list", "folder"])
def test_several_files_are_one_corpus(tmp_path, load, pattern):
    folder = tmp_path / "corpus"
    folder.mkdir()
    paths = [write(folder / f"part{i}.jsonl", ROWS[20 * i : 20 * i + 20]) for i in range(2)]
    sources = {"part*.jsonl": folder / "part*.jsonl", "list": [str(path) for path in paths], "folder": folder}
    assert together(load(sources[pattern])) == sorted(TEXTS)


def test_a_relative_path_and_the_home_folder_are_found(tmp_path, load, monkeypatch):
    write(tmp_path / "corpus.jsonl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert together(load("corpus.jsonl")) == together(load("~/corpus.jsonl")) == sorted(TEXTS)


def test_a_hub_style_folder_has_its_own_validation_split(tmp_path, load):
    (tmp_path / "hub" / "data").mkdir(parents=True)
    (tmp_path / "hub" / "README.md").write_text("# A card\n")
    (tmp_path / "hub" / ".old.csv").write_text("text\nnot this\n")
    write(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet", ROWS[:30])
    write(tmp_path / "hub" / "data" / "validation-00000-of-00001.parquet", ROWS[30:])
    splits = load(tmp_path / "hub", test_fraction=0.1)
    assert splits["validation"] == TEXTS[30:]
    assert len(splits["test"]) == 3
    assert sorted(splits["train"] + splits["test"]) == sorted(TEXTS[:30])


def test_a_folder_of_text_files_has_the_splits_they_are_named_after(tmp_path, load):
    for name, text in {"train": "a b c", "valid": "d e", "test": "f"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    assert load(tmp_path) == {"train": ["a b c"], "validation": ["d e"], "test": ["f"]}


def test_what_datasets_saved_is_read_with_its_splits(tmp_path, load):
    data = Dataset.from_list(ROWS)
    data.save_to_disk(tmp_path / "one")
    assert together(load(tmp_path / "one")) == sorted(TEXTS)
    DatasetDict(train=data.select(range(35)), dev=data.select(range(35, 40))).save_to_disk(tmp_path / "two")
    splits = load(tmp_path / "two", test_fraction=0.0)
    assert splits == {"train": TEXTS[:35], "validation": TEXTS[35:]}


def test_validation_may_come_from_files_of_its_own(tmp_path, load):
    train, validation = write(tmp_path / "a.jsonl", ROWS[:30]), write(tmp_path / "b.csv", ROWS[30:])
    splits = load(train, validation_source=str(validation), test_fraction=0.0)
    assert splits == {"train": TEXTS[:30], "validation": TEXTS[30:]}


def test_another_column_may_hold_the_text(tmp_path, load):
    path = write(tmp_path / "corpus.csv", [{"text": "no", "body": text} for text in TEXTS])
    assert together(load(path, text_column="body")) == sorted(TEXTS)


def test_one_text_is_cut_by_position_as_nanogpt_does(tmp_path, load):
    text = "".join(chr(97 + i % 26) for i in range(1234))
    (tmp_path / "input.txt").write_text(text)
    n = int(len(text) * 0.9)
    whole = {"validation_fraction": 0.1, "test_fraction": 0.0}
    assert load(tmp_path / "input.txt", **whole) == {"train": [text[:n]], "validation": [text[n:]]}
    splits = load(tmp_path / "input.txt", validation_fraction=0.1, test_fraction=0.1)
    assert "".join(splits["train"] + splits["validation"] + splits["test"]) == text
    assert len(splits["train"][0]) == round(len(text) * 0.8)


def test_rows_without_text_are_left_out(tmp_path, load):
    path = write(tmp_path / "corpus.jsonl", [*ROWS, {"text": None, "id": 40}, {"text": " \n", "id": 41}])
    assert together(load(path)) == sorted(TEXTS)
    few = write(tmp_path / "few.jsonl", [{"text": None}, {"text": "x" * 100}])
    assert "".join(load(few, validation_fraction=0.1, test_fraction=0.0)["train"]) == "x" * 90


def test_no_more_documents_are_read_than_asked_for(tmp_path, load):
    path = write(tmp_path / "corpus.jsonl")
    assert together(load(path, max_documents=20)) == sorted(TEXTS[:20])
    streamed = load(path, max_documents=20, streaming=True, holdout_documents=3)
    assert together(streamed) == sorted(TEXTS[:20])


def test_a_stream_holds_out_its_first_documents(tmp_path, load):
    splits = load(write(tmp_path / "corpus.jsonl"), streaming=True, holdout_documents=4, test_fraction=0.0)
    assert splits == {"train": TEXTS[4:], "validation": TEXTS[:4]}


def test_the_fingerprint_changes_with_arguments_and_files(tmp_path):
    path = write(tmp_path / "corpus.jsonl")
    before = Corpus(str(path)).fingerprint()
    assert Corpus(str(path)).fingerprint() == before
    assert Corpus(str(path), text_column="id").fingerprint() != before
    with path.open("a") as file:
        file.write('{"text": "one more"}\n')
    assert Corpus(str(path)).fingerprint() != before


def refusal(load, source, **options) -> str:
    with pytest.raises(InputError) as refused:
        load(source, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


BAD_FILES = {
    "empty.txt": (b"", "empty"),
    "latin.txt": ("one\ncafé".encode("latin-1"), "byte 7, on line 2"),
    "cyrillic.csv": ("text\nпривет\n".encode("cp1251"), "invalid UTF-8 (row 2"),
    "cut.txt": ("naïve".encode()[:3], "byte 2, on line 1"),
    "broken.jsonl": (b'{"text": broken}\n', "no JSON (row 1"),
    "broken.json": (b'[{"text": "a"}, {', "no JSON (row 1"),
    "broken.csv": (b'text,id\n"a,1\nb', "unclosed quote (row 2"),
    "broken.parquet": (b"this is no Parquet file", "Parquet"),
    "broken.txt.gz": (b"this is no gzip file", "gzip"),
    "cut.txt.gz": (gzip.compress(b"some text" * 99)[:-9], "ended before"),
    "unknown.docx": (b"text", ".parquet"),
    "numbers.jsonl": (b'{"text": 1}\n', "wrong type (row 1"),
    "nulls.jsonl": (b'{"text": null}\n', "'text'"),
    "columns.csv": (b"title,body\na,b\n", "'title', 'body'"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_by_name_with_its_fault(tmp_path, load, name):
    content, fault = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    message = refusal(load, tmp_path / name)
    assert name in message
    assert fault in message


def test_a_bad_byte_is_found_where_reading_cuts_a_character_in_two(tmp_path, load):
    text = b"x" * ((1 << 20) - 1) + "é".encode() + b"\n\xff"
    (tmp_path / "long.txt").write_bytes(text)
    assert f"byte {len(text) - 1:,}, on line 2" in refusal(load, tmp_path / "long.txt")


@pytest.mark.parametrize("name", ["missing.txt", "folder/missing", "*.jsonl"])
def test_a_missing_file_is_refused_by_name(tmp_path, load, name):
    assert str(tmp_path / name) in refusal(load, tmp_path / name)


def test_a_missing_file_of_a_list_is_refused_by_name(tmp_path, load):
    assert "absent.txt" in refusal(load, [str(write(tmp_path / "corpus.txt")), str(tmp_path / "absent.txt")])


def test_an_empty_folder_and_a_mixed_one_are_refused(tmp_path, load):
    folder = tmp_path / "corpus"
    folder.mkdir()
    assert str(folder) in refusal(load, folder)
    write(folder / "a.txt")
    write(folder / "b.csv")
    assert "csv and text" in refusal(load, folder)


def test_splits_none_of_which_is_for_training_are_refused(tmp_path, load):
    data = Dataset.from_list(ROWS)
    DatasetDict(left=data, right=data).save_to_disk(tmp_path / "saved")
    assert "left, right" in refusal(load, tmp_path / "saved")


def test_a_dataset_that_the_hub_does_not_give_is_refused_in_one_line(load, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refusal(load, "nobody/such-a-dataset")
    assert "nobody/such-a-dataset" in message
    assert "hub" in message


@pytest.mark.parametrize(
    "options",
    [
        {"validation_fraction": -0.1},
        {"validation_fraction": 0.6, "test_fraction": 0.4},
        {"max_documents": 0},
        {"holdout_documents": 0},
    ],
)
def test_shares_and_counts_that_cannot_be_are_refused(options):
    with pytest.raises(InputError, match=str(next(iter(options.values())))):
        Corpus(**options)
