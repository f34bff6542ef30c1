"""Which split a file or a part of a dataset is, by its name."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.data.classification import LabelledSource
from src.data.corpora import Corpus, documents
from src.data.malformed import Reading
from src.data.splits import SPLITS, split_files, split_of, split_parts
from src.errors import InputError

NAMES = {
    "train.txt": "train",
    "training_set.jsonl": "train",
    "val.txt": "validation",
    "my-val.csv.gz": "validation",
    "VALID.TSV": "validation",
    "dev/a.txt": "validation",
    "data/validation-00000-of-00002.parquet": "validation",
    "train/test_of_time.txt": "train",
    "test_2016_flickr.de": "test",
    "eval.txt": "eval",
    "devices.txt": None,
    "contest.jsonl": None,
    "evaluate.txt": None,
    "trainer.txt": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_word_of_a_name_says_the_split(name):
    assert split_of(name) == NAMES[name]


def test_a_name_that_says_two_splits_is_refused():
    with pytest.raises(InputError, match="test and train"):
        split_of("train_test.txt")


WORDS = st.sampled_from(["train", "val", "valid", "dev", "test", "eval", "part", "notes", "a/train", "b/dev", "c/x"])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(words=st.lists(WORDS, min_size=1, max_size=8))
def test_every_file_is_in_one_split_or_told_of(words):
    files = {Path(f"{word}-{i}.txt"): f"{word}-{i}.txt" for i, word in enumerate(words)}
    out = StringIO()
    try:
        with redirect_stdout(out):
            found = split_files(files, "here")
    except InputError:
        assert "train" not in map(split_of, files.values())
        return
    used = [file for of in found.values() for file in of]
    assert len(used) == len(set(used))
    assert "train" in found
    assert set(found) <= set(SPLITS)
    assert ("not used of here" in out.getvalue()) == (len(used) < len(files))
    if any(split_of(name) == "train" for name in files.values()):
        assert all(split_of(files[file]) == "train" for file in found["train"])


def test_eval_is_what_is_missing(capsys):
    def named(*names):
        return {split: [file.name for file in of] for split, of in split_files({Path(n): n for n in names}, "").items()}

    assert named("train", "eval") == {"train": ["train"], "validation": ["eval"]}
    assert named("train", "eval", "dev") == {"train": ["train"], "validation": ["dev"], "test": ["eval"]}
    assert named("train", "eval", "test") == {"train": ["train"], "validation": ["eval"], "test": ["test"]}
    assert set(named("train", "eval", "test", "dev")) == set(SPLITS)
    assert "not used of : eval" in capsys.readouterr().out


def test_the_parts_of_a_dataset(capsys):
    assert split_parts({"train": 1, "train_extra": 2, "dev": 3}, "x") == {"train": 1, "validation": 3}
    assert "not used of x: train_extra" in capsys.readouterr().out
    assert split_parts({"big": 1, "flickr": 2, "test": 3}, "x", {"train": "big", "test": "flickr"}) == {
        "train": 1,
        "test": 2,
    }
    assert split_parts({"validation": 1}, "x") == {"train": 1}
    with pytest.raises(InputError, match="has no split 'nowhere': it has train"):
        split_parts({"train": 1}, "x", {"test": "nowhere"})
    with pytest.raises(InputError, match="a_train, b_train: one of them must be 'train'"):
        split_parts({"a_train": 1, "b_train": 2}, "x")


ROWS = {"train": range(20), "val": range(20, 26), "test": range(26, 30)}


def write(folder: Path, shape: str) -> None:
    """The rows in files or folders that are named after their splits."""
    for split, numbers in ROWS.items():
        data = Dataset.from_list([{"text": f"row {i}", "label": "ab"[i % 2]} for i in numbers])
        if shape == "csv":
            data.to_csv(folder / f"{split}.csv")
        elif shape == "jsonl":
            data.to_json(folder / f"my_{split}.jsonl")
            with (folder / f"my_{split}.jsonl").open("a") as file:
                file.write("broken\n" if split == "train" else "")
        elif shape == "folders":
            (folder / split).mkdir()
            data.to_csv(folder / split / "some.TSV", sep="\t")
        elif shape == "shards":
            for i in range(2):
                data.shard(2, i).to_parquet(folder / f"{split}-0000{i}-of-00002.parquet")
    if shape == "saved":
        rows = {s: Dataset.from_list([{"text": f"row {i}", "label": "ab"[i % 2]} for i in n]) for s, n in ROWS.items()}
        DatasetDict(rows).save_to_disk(folder)


@pytest.mark.parametrize("shape", ["csv", "jsonl", "folders", "shards", "saved"])
def test_every_reader_takes_the_splits_of_a_folder(tmp_path, shape):
    folder = tmp_path / "rows"
    folder.mkdir()
    write(folder, shape)
    expected = {"train": 20, "validation": 6, "test": 4}
    reading = Reading(max_malformed=0.1)
    splits = Corpus(str(folder), reading=reading).splits(tmp_path / "cache")
    assert {split: len(list(documents(rows))) for split, rows in splits.items()} == expected
    labelled, names = LabelledSource(str(folder), None, ("text",), 0.1, 0.1, reading).labelled(tmp_path)
    assert {split: len(list(rows)) for split, rows in labelled.items()} == expected
    assert names == ["a", "b"]
    assert sorted(text for (text,), _ in labelled["validation"]) == [f"row {i}" for i in ROWS["val"]]


def test_a_folder_of_text_files_and_a_pattern(tmp_path, capsys):
    for name in ("train", "val", "notes"):
        (tmp_path / f"{name}.txt").write_text(name)
    for source in (tmp_path, tmp_path / "*.txt"):
        splits = Corpus(str(source), test_fraction=0).splits(tmp_path / "cache")
        assert {split: list(documents(rows)) for split, rows in splits.items()} == {
            "train": ["train"],
            "validation": ["val"],
        }
        assert "notes.txt" in capsys.readouterr().out
    held_out = Corpus(str(tmp_path / "train.txt"), validation_source=str(tmp_path / "val.txt"), test_fraction=0)
    assert list(documents(held_out.splits(tmp_path)["validation"])) == ["val"]
