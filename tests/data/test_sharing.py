"""A preparation that several machines share gives the files of one."""

import json

import pytest

from src.data import ClassificationDataModule, LMDataModule, MLMDataModule, TranslationDataModule
from src.data.sharing import Part
from src.errors import InputError
from tests.conftest import WORDS, prepared


def options(module, folder):
    """Rows of several lengths, one of them malformed; for a BERT some documents that are too short."""
    sentences = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 8)) + f" {i}." for i in range(400)]
    rows = [{"text": " ".join(sentences[i : i + i % 5]), "en": s, "fr": s[::-1]} for i, s in enumerate(sentences)]
    rows[7] = {"text": None, "en": "", "fr": "x"}
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {"source": str(folder / "rows.jsonl"), "tokenizer_vocab_size": 300, "max_malformed": 0.5}
    return found if module is TranslationDataModule else {**found, "seq_len": 16}


def files(data):
    return {path.name: path.read_bytes() for path in data.folder.iterdir()}


@pytest.mark.parametrize(
    ("module", "n"), [(LMDataModule, 1), (LMDataModule, 25), (MLMDataModule, 3), (TranslationDataModule, 3)]
)
def test_joined_parts_are_the_files_of_one_preparation(module, n, tmp_path, capsys):
    """In any order, and where some part of a split has no row."""
    arguments = options(module, tmp_path)
    whole = prepared(module(**arguments, cache_dir=str(tmp_path / "whole")))
    for number in reversed(range(1, n + 1)):
        part = module(**arguments, cache_dir=str(tmp_path / "shared"))
        part.part = Part(number, n)
        part.prepare_data()
    joined = module(**arguments, cache_dir=str(tmp_path / "shared"))
    capsys.readouterr()
    joined.prepare_data()
    assert f"joining {n} parts" in capsys.readouterr().out
    assert files(joined) == files(whole)
    assert joined.info == whole.info
    assert [path.name for path in (tmp_path / "shared").glob("*-*[0-9a-f]*") if path.is_dir()] == [joined.folder.name]


def test_a_missing_part_is_told_and_all_is_prepared_anew(tmp_path, capsys):
    arguments = options(LMDataModule, tmp_path)
    first = LMDataModule(**arguments, cache_dir=str(tmp_path))
    first.part = Part(1, 2)
    first.prepare_data()
    whole = prepared(LMDataModule(**arguments, cache_dir=str(tmp_path)))
    assert "of 2 parts of" in capsys.readouterr().out
    assert whole.info["train"]["documents"] > 200


def test_several_sources_are_shared_as_one(tmp_path):
    """Of each document as many tokens, whoever prepares it."""
    (tmp_path / "more").mkdir()
    arguments = options(MLMDataModule, tmp_path) | {
        "more_sources": [options(MLMDataModule, tmp_path / "more")["source"]]
    }
    whole = prepared(MLMDataModule(**arguments, cache_dir=str(tmp_path / "whole")))
    for number in (1, 2, 3):
        part = MLMDataModule(**arguments, cache_dir=str(tmp_path / "shared"))
        part.part = Part(number, 3)
        part.prepare_data()
    assert files(prepared(MLMDataModule(**arguments, cache_dir=str(tmp_path / "shared")))) == files(whole)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(InputError, match="name one of several, such as 2/8"):
        Part.parse(text)


def test_the_parts_of_one_document_are_refused(tmp_path):
    (tmp_path / "text.txt").write_text("One document. " * 500)
    data = LMDataModule(source=str(tmp_path / "text.txt"), tokenizer="byte", cache_dir=str(tmp_path / "cache"))
    data.part = Part(1, 2)
    with pytest.raises(InputError, match="too few for several machines: name a document_separator"):
        data.prepare_data()


def test_the_command_prepares_parts_and_fit_joins_them(run, tmp_path):
    arguments = options(LMDataModule, tmp_path)
    command = ["prepare", "--config", "configs/gpt.yaml", "--data.tokenizer", "byte", "--data.seq_len", 16]
    command += [
        "--data.source",
        arguments["source"],
        "--data.max_malformed",
        0.5,
        "--data.cache_dir",
        tmp_path / "cache",
    ]
    for more, said in (
        (["--part", "2/2"], "part 2/2 is prepared in"),
        (["--part", "1/2"], "fit joins"),
        ([], "joining 2"),
    ):
        status, out, err = run(*command, *more)
        assert status == 0, err
        assert said in out
    status, _, err = run(*command, "--part", "3/2")
    assert (status, err.count("\n")) == (2, 1)


def test_a_stream_which_is_not_prepared_is_not_shared(run, tmp_path):
    source = options(LMDataModule, tmp_path)["source"]
    command = ["prepare", "--config", "configs/gpt.yaml", "--data.source", source, "--data.streaming", "true"]
    status, _, err = run(*command, "--data.cache_dir", tmp_path / "cache", "--part", "1/2")
    assert (status, err.count("\n")) == (2, 1)
    assert "LMDataModule is prepared by one machine alone" in err


def test_what_cannot_be_shared_is_refused_by_name(run, tmp_path):
    assert not ClassificationDataModule.can_be_shared
    command = ["prepare", "--config", "configs/classification.yaml", "--data.tokenizer", "wordpiece", "--part", "1/2"]
    status, _, err = run(*command, "--data.cache_dir", tmp_path)
    assert status == 2
    assert "ClassificationDataModule is prepared by one machine alone" in err
