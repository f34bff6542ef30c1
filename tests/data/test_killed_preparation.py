"""A preparation that is killed: the splits that it had completed are not prepared again."""

import json
import random

import pytest

from src.coverage import MeasuredTokenizer
from src.data import ClassificationDataModule, LMDataModule, MLMDataModule, TranslationDataModule
from src.data.journal import INFO, is_complete
from tests.conftest import WORDS, prepared


class Killed(BaseException):
    """As a signal ends a process: nothing is tidied up."""


def texts(n):
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=12)) + ". And one more." for _ in range(n)]


@pytest.fixture(params=[LMDataModule, MLMDataModule, ClassificationDataModule, TranslationDataModule])
def make(request, tmp_path):
    """Makes the data module in a folder."""
    rows = [{"text": text, "label": "ab"[i % 2], "de": text[::-1], "en": text} for i, text in enumerate(texts(90))]
    rows.append({"text": None, "label": "a", "de": "x " * 300, "en": ""})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"source": str(tmp_path / "rows.jsonl"), "tokenizer_vocab_size": 300}
    options |= {"validation_fraction": 0.2, "test_fraction": 0.2}
    if request.param is TranslationDataModule:
        options |= {"source_language": "de", "target_language": "en"}
    else:
        options |= {"seq_len": 32}
    if request.param is ClassificationDataModule:
        options |= {"tokenizer": "wordpiece"}
    return lambda folder: request.param(**options, cache_dir=str(tmp_path / folder))


def is_of(tokenizer, split):
    return f"{split} split" in tokenizer.where


@pytest.fixture
def encoded(monkeypatch):
    """The splits of which texts are tokenised, in order; a kill at the first text of ``kill_at``."""
    encode = MeasuredTokenizer.encode

    class Encoded(list):
        kill_at = ""

    found = Encoded()

    def watched(tokenizer, *arguments, **options):
        split = next(name for name in ("train", "validation", "test") if is_of(tokenizer, name))
        if split == found.kill_at:
            raise Killed
        found.append(split)
        return encode(tokenizer, *arguments, **options)

    monkeypatch.setattr(MeasuredTokenizer, "encode", watched)
    return found


def files(data):
    return {path.name: path.read_bytes() for path in data.folder.iterdir()}


def test_complete_splits_are_not_tokenised_again(make, encoded, capsys):
    whole = prepared(make("whole"))
    assert set(encoded) == {"train", "validation", "test"}
    left_out = [line for line in capsys.readouterr().out.splitlines() if "rows, " in line]
    for split, rest in (("validation", {"validation", "test"}), ("test", {"test"})):
        encoded.kill_at = split
        with pytest.raises(Killed):
            make(split).prepare_data()
        encoded.clear()
        encoded.kill_at = ""
        capsys.readouterr()
        resumed = prepared(make(split))
        assert set(encoded) == rest
        told = set(capsys.readouterr().out.splitlines())
        assert set(left_out) <= told or isinstance(whole, ClassificationDataModule)  # which tells it as it reads
        assert resumed.info == whole.info
        assert files(resumed) == files(whole)
        assert is_complete(resumed.folder)


def test_a_split_is_complete_only_when_all_of_it_is_on_the_disk(make, encoded):
    """What a process that was killed at the first split has left is written again."""
    whole = prepared(make("whole"))
    encoded.kill_at = "train"
    with pytest.raises(Killed):
        make("killed").prepare_data()
    encoded.clear()
    encoded.kill_at = ""
    assert files(prepared(make("killed"))) == files(whole)
    assert set(encoded) == {"train", "validation", "test"}


def test_a_folder_that_only_waits_for_its_name_gets_it(make, encoded):
    whole = prepared(make("cache"))
    expected = files(whole)
    whole.folder.rename(f"{whole.folder}.partial")
    encoded.clear()
    again = prepared(make("cache"))
    assert files(again) == expected
    assert not encoded


def test_a_damaged_folder_without_its_name_is_prepared_again_and_complete(make, encoded):
    whole = prepared(make("cache"))
    expected = files(whole)
    aside = whole.folder.rename(f"{whole.folder}.partial")
    (aside / "tokenizer.json").unlink()
    again = prepared(make("cache"))
    assert files(again) == expected
    assert is_complete(again.folder)
    assert INFO not in json.loads((again.folder / INFO).read_bytes())["files"]
