"""Parallel corpora of every kind, what is filtered and what is kept, and the batches."""

import gzip
import json
import zipfile
from collections import Counter
from struct import pack

import pytest
import torch
from datasets import Dataset, load_dataset

from src.data import TranslationDataModule, embedded
from src.data.malformed import Reading
from src.data.parallel import ParallelCorpus
from src.errors import InputError
from src.files import read_lines
from tests.conftest import prepared
from tests.outside import letters_with_gaps

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ZAHLEN = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]


def digits(i):
    return [(i * 7 + j * j * 3 + i * j) % 10 for j in range(2 + i % 6)]


def pairs(n, start=0):
    return [
        (f"{' '.join(ZAHLEN[d] for d in digits(i))} Nr. {i}.", f"{' '.join(NUMBERS[d] for d in digits(i))} no. {i}.")
        for i in range(start, start + n)
    ]


def write(folder, split, rows, suffix=""):
    folder.mkdir(exist_ok=True)
    for language, side in (("de", 0), ("en", 1)):
        text = "".join(row[side] + "\n" for row in rows)
        path = folder / f"{split}.{language}{suffix}"
        path.write_bytes(gzip.compress(text.encode()) if suffix else text.encode())


@pytest.fixture
def folder(tmp_path):
    for split, rows in {"train": pairs(80), "validation": pairs(9, 100), "test": pairs(7, 200)}.items():
        write(tmp_path / "corpus", split, rows)
    return tmp_path / "corpus"


def module(source, tmp_path, **changes):
    options = {"tokenizer_vocab_size": 300, "max_length": 64, "max_tokens": 128, "cache_dir": str(tmp_path / "cache")}
    languages = {"source_language": "de", "target_language": "en"}
    return prepared(TranslationDataModule(source=str(source), **{**options, **languages, **changes}))


def corpus(source, **changes):
    return ParallelCorpus(str(source), **{"source_language": "de", "target_language": "en", **changes})


EXPECTED = {"train": pairs(80), "validation": pairs(9, 100), "test": pairs(7, 200)}


def loaded(source, cache, **changes):
    return {split: list(rows) for split, rows in corpus(source, **changes).load(cache).items()}


def test_aligned_files_in_either_direction(folder, tmp_path):
    assert loaded(folder, tmp_path) == EXPECTED
    swapped = loaded(folder, tmp_path, source_language="en", target_language="de")
    assert swapped["train"] == [(b, a) for a, b in pairs(80)]


def test_compressed_files_and_other_names_of_splits(tmp_path):
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test_2016")):
        write(tmp_path / "corpus", name, EXPECTED[split], ".gz")
    splits = {"validation": "val", "test": "test_2016"}
    assert loaded(tmp_path / "corpus", tmp_path, splits=splits) == EXPECTED


@pytest.mark.parametrize("kind", ["tsv", "jsonl", "nested jsonl"])
def test_tables(kind, tmp_path):
    rows = [*EXPECTED["train"][:-1], ('er sagt "null', 'NA says "null')]
    lines = {
        "tsv": ["en\tde", *(f"{b}\t{a}" for a, b in rows)],
        "jsonl": [json.dumps({"de": a, "en": b, "id": 1}) for a, b in rows],
        "nested jsonl": [json.dumps({"translation": {"de": a, "en": b}}) for a, b in rows],
    }[kind]
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / f"train.{kind.split()[-1]}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = loaded(tmp_path / "corpus", tmp_path, validation_fraction=0, test_fraction=0)
    assert found == {"train": rows}


@pytest.mark.parametrize("name", ["pairs.tsv", "train.csv", "pairs.tsv.gz", "test.jsonl"])
def test_one_table_of_pairs(name, tmp_path):
    rows = [[a, b] for a, b in EXPECTED["train"]]
    if "jsonl" in name:
        text = "\n".join(json.dumps(dict(zip(("de", "en"), row, strict=True))) for row in rows)
    else:
        text = "".join("\t,"["csv" in name].join(row) + "\r\n" for row in (["de", "en"], *rows))
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    found = loaded(tmp_path / name, tmp_path, validation_fraction=0.2, test_fraction=0)
    assert Counter(pair for pairs in found.values() for pair in pairs) == Counter(EXPECTED["train"])
    assert set(found) == {"train", "validation"}
    before = corpus(tmp_path / name).fingerprint()
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b"\n")
    assert corpus(tmp_path / name).fingerprint() != before


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "pairs.tsv",
            "eins\tone\nzwei\ttwo\n",
            "no column 'de': its first line, which must name the columns, has 'eins', 'one'",
        ),
        ("pairs.txt", "eins\tone\n", "pairs.txt is no table of pairs: name a .tsv"),
        ("none.tsv", None, "none.tsv is no file or folder: name a .tsv"),
    ],
)
def test_a_file_that_is_no_table_of_pairs(name, text, message, tmp_path):
    if text:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        loaded(tmp_path / name, tmp_path)


def test_parquet_with_the_schema_of_wmt(tmp_path):
    """WMT14's own layout, through the very function that would load it from the hub."""
    (tmp_path / "wmt14" / "de-en").mkdir(parents=True)
    for split, rows in EXPECTED.items():
        data = Dataset.from_list([{"translation": {"de": a, "en": b}} for a, b in rows])
        data.to_parquet(tmp_path / "wmt14" / "de-en" / f"{split}-00000-of-00001.parquet")
    assert loaded(tmp_path / "wmt14", tmp_path) == EXPECTED
    assert load_dataset(str(tmp_path / "wmt14"))["train"].column_names == ["translation"]
    data = module(tmp_path / "wmt14", tmp_path)
    assert data.texts("test") == EXPECTED["test"]
    assert len(data.dataset("train")) == 80


def test_missing_splits_are_cut_out_by_sentence(tmp_path):
    rows = [*pairs(400), *((a.upper(), b + "!") for a, b in pairs(400))]  # each source twice, differently written
    write(tmp_path / "corpus", "train", rows)
    found = loaded(tmp_path / "corpus", tmp_path, validation_fraction=0.1, test_fraction=0.1)
    assert Counter(row for split in found.values() for row in split) == Counter(rows)
    sources = [{a.casefold() for a, _ in split} for split in found.values()]
    assert not sources[0] & sources[1]
    assert not sources[0] & sources[2]
    assert not sources[1] & sources[2]
    assert all(40 < len(found[split]) < 120 for split in ("validation", "test"))
    more = loaded(tmp_path / "corpus", tmp_path, validation_fraction=0.1, test_fraction=0.1)
    assert more == found


def test_what_cannot_be_trained_on_is_counted_and_what_is_tested_is_kept(folder, tmp_path):
    odd = [("", "nothing here"), ("eins " * 80, "one " * 80), ("eins", "one " * 30), ("leer", " ")]
    write(folder, "train", [*pairs(20), *odd])
    write(folder, "test", [*pairs(3, 200), *odd])
    data = module(folder, tmp_path)
    counts = data.summary()
    assert counts["train"]["pairs"] == 20
    dropped = {what: n for what, n in counts["train"].items() if "left out" in what}
    assert dropped == {"empty, left out": 2, "over-long, left out": 1, "lopsided, left out": 1}
    assert counts["test"]["pairs"] == 7
    assert counts["test"]["over-long, cut"] == 1
    assert data.texts("test") == [*pairs(3, 200), *odd]
    assert data.dataset("test").lengths.max() == 64


def test_a_batch(folder, tmp_path):
    data = module(folder, tmp_path)
    rows = data.dataset("train")
    batch = rows.__getitems__([(0, 3), (0, -1), (0, 11)])
    end, start = data.source_tokenizer.token_to_id("<|endoftext|>"), data.start_id
    for row, index in ((0, 3), (2, 11)):
        source, target = pairs(80)[index]
        real = batch["attention_mask"][row].bool()
        ids, labels = batch["input_ids"][row, real].tolist(), batch["labels"][row]
        labels = labels[labels != -100].tolist()
        assert ids[-1] == end
        assert labels[-1] == data.end_id
        assert data.source_tokenizer.decode(ids) == source
        assert data.tokenizer.decode(labels) == target
        assert batch["decoder_input_ids"][row, : len(labels)].tolist() == [start, *labels[:-1]]
    assert (batch["labels"][1] == -100).all()
    assert batch["attention_mask"][1].sum() == 1
    assert batch["index"].tolist() == [3, -1, 11]
    assert {name: tuple(t.shape) for name, t in rows.__getitems__([(0, -1)]).items()}["labels"] == (1, 1)


def test_an_epoch_trains_on_each_pair_once(folder, tmp_path):
    data = module(folder, tmp_path)
    batches = list(data.train_dataloader())
    assert sorted(torch.cat([batch["index"] for batch in batches]).tolist()) == list(range(80))
    for batch in batches:
        assert batch["target_tokens"] == (batch["labels"] != -100).sum()
        assert max(batch["input_ids"].numel(), batch["labels"].numel()) <= 128


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_one_vocabulary_or_two(kind, folder, tmp_path):
    two = module(folder, tmp_path, tokenizer=kind)
    one = module(folder, tmp_path, tokenizer=kind, joint_vocabulary=True)
    assert two.source_tokenizer.to_str() != two.tokenizer.to_str()
    assert one.source_tokenizer.to_str() == one.tokenizer.to_str()
    assert len(two.tokenizer.encode("seven").ids) < len(two.source_tokenizer.encode("seven").ids)
    for text in ("sieben sieben", "Ünïcode – 漢字 \u2028 x"):
        assert one.tokenizer.decode(one.tokenizer.encode(text).ids) == text


def test_a_start_token_of_its_own(folder, tmp_path):
    tokenizer = module(folder, tmp_path).tokenizer
    tokenizer.add_special_tokens(["<start>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    data = module(folder, tmp_path, tokenizer=str(tmp_path / "tokenizer.json"), start_token="<start>")
    batch = next(iter(data.val_dataloader()))
    assert (batch["decoder_input_ids"][:, 0] == tokenizer.token_to_id("<start>")).all()
    assert data.special_tokens["decoder_start_token"] == "<start>"


def test_the_second_time_nothing_is_prepared(folder, tmp_path, monkeypatch):
    first = module(folder, tmp_path).summary()
    monkeypatch.setattr(TranslationDataModule, "write_cache", None)
    assert module(folder, tmp_path).summary() == first


def test_a_damaged_cache_is_made_again(folder, tmp_path):
    first = module(folder, tmp_path)
    before = first.summary()
    path = first.folder / "train.target.npy"
    raw = bytearray(path.read_bytes())
    raw[200] ^= 1
    path.write_bytes(raw)
    again = module(folder, tmp_path)
    assert again.summary() == before
    assert path.read_bytes() != raw


def test_lines_end_at_line_feeds_alone(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("a\u2028b\x0bc\x85d\r\ne\n".encode())
    assert list(read_lines(path)) == ["a\u2028b\x0bc\x85d", "e"]


# ---- bad input


def test_files_of_unequal_length(folder, tmp_path):
    with (folder / "train.en").open("a", encoding="utf-8") as file:
        file.write("one more\n")
    with pytest.raises(InputError, match=r"train.de has 80 lines and .*train.en 81: aligned files"):
        module(folder, tmp_path).prepare_data()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_language": "fr"}, "has no language 'fr': it has de, en"),
        ({"source_language": "en"}, "source_language and target_language are both 'en'"),
        ({"splits": {"train": "training"}}, "has no split 'training': it has test, train, validation"),
        ({"splits": {"valid": "validation"}}, "splits has 'valid': its keys are train, validation, test"),
        ({"source": "./nowhere"}, "./nowhere is no file or folder: name a .tsv"),
        ({"max_tokens": 40}, "max_tokens is 40: a batch must hold at least one pair of max_length 64"),
        ({"max_length": 1}, "leaves no pair"),
        ({"max_length": 2}, "the train split .* has no pair: 80 over-long, left out"),
        ({"source_tokenizer": "bpe", "joint_vocabulary": True}, "one vocabulary has one tokenizer"),
        ({"start_token": "<s>"}, "the tokenizer has no '<s>': set start_token to"),
        ({"validation_fraction": 1.5}, "leave something to train on"),
        ({"tokenizer_vocab_size": 100}, "has no room for the 256 bytes"),
    ],
)
def test_bad_settings(changes, message, folder, tmp_path):
    with pytest.raises(InputError, match=message):
        module(changes.pop("source", folder), tmp_path, **changes).prepare_data()


def test_tables_none_of_which_is_for_training(tmp_path, folder):
    for name in ("dev", "test"):
        Dataset.from_list([{"de": "a", "en": "b"}]).to_parquet(folder / f"{name}.parquet")
    for path in folder.glob("*.??"):
        path.unlink()
    with pytest.raises(InputError, match="dev, test: one of them must be 'train'"):
        module(folder, tmp_path, validation_fraction=0).prepare_data()


# ---- message catalogues


def catalogue(entries):
    """The bytes of a compiled catalogue, as the gettext manual has it."""
    entries = sorted({"": "Content-Type: text/plain; charset=UTF-8\n", **entries}.items())
    raw = [[text.encode() for text in column] for column in zip(*entries, strict=True)]
    place, tables, body = 28 + 16 * len(entries), [], b""
    for column in raw:
        for text in column:
            tables.append(pack("<II", len(text), place + len(body)))
            body += text + b"\0"
    return pack("<7I", 0x950412DE, 0, len(entries), 28, 28 + 8 * len(entries), 0, 0) + b"".join(tables) + body


def test_messages_of_a_wheel(tmp_path):
    wheel = tmp_path / "program-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        entries = {"Open": "Ouvrir", "menu\x04Close": "Fermer", "%d file\0%d files": "%d fichier\0%d fichiers"}
        archive.writestr("program/locale/fr/LC_MESSAGES/django.mo", catalogue(entries))
        archive.writestr("program/locale/fr_CA/LC_MESSAGES/django.mo", catalogue({"Open": "Non"}))
        archive.writestr("program/locale/de/LC_MESSAGES/django.mo", catalogue({"Open": "Öffnen"}))
    assert sorted(embedded.messages(wheel)) == [("%d file", "%d fichier"), ("Close", "Fermer"), ("Open", "Ouvrir")]


def test_messages_are_cleaned():
    raw = [
        ("&Open  the\nfile", "&Ouvrir le fichier"),
        ("open the file", "ouvre"),
        ("%(n)s files", "%(n)s fichiers"),
        ("<b>Bold</b>", "Gras"),
        ("Hello {name}", "Bonjour"),
        ("Documentation", "documentation"),
        ("Draft", ""),
        ("1 : 2", "1 sur 2"),
        ("R&D costs", "Coûts"),
        ("100% sure", "sûr à 100 %"),
    ]
    assert embedded.clean_pairs(raw) == [
        ("Open the file", "Ouvrir le fichier"),
        ("R&D costs", "Coûts"),
        ("100% sure", "sûr à 100 %"),
    ]


def test_other_files_beside_a_corpus_are_not_part_of_it(folder):
    before = corpus(folder).fingerprint()
    (folder / "fit.log").write_text("step 1")
    (folder / "out.en").write_text("a translation")
    assert corpus(folder).fingerprint() == before
    with (folder / "train.de").open("a") as file:
        file.write("\n")
    assert corpus(folder).fingerprint() != before


def test_ids_that_a_tokenizer_leaves_out_count_for_both_vocabularies(folder, tmp_path):
    letters = "".join(sorted(set("".join(a + b for a, b in pairs(300)))))
    letters_with_gaps(letters).save(str(tmp_path / "tokenizer.json"))
    data = module(folder, tmp_path, tokenizer=str(tmp_path / "tokenizer.json"), end_token="</s>")
    data.prepare_data()
    assert data.vocab_size == data.source_vocab_size == 70_001
    for batch in data.train_dataloader():
        assert batch["input_ids"].max() < data.source_vocab_size
        assert batch["labels"].max() < data.vocab_size


def test_a_folder_whose_tokenizer_is_replaced_is_prepared_again(folder, tmp_path):
    letters = "".join(sorted(set("".join(a + b for a, b in pairs(300)))))
    for gap in (1000, 2000):
        letters_with_gaps(letters, gap).save(str(tmp_path / "tokenizer.json"))
        assert module(folder, tmp_path, tokenizer=str(tmp_path), end_token="</s>").vocab_size == gap + 1


def test_a_tokenizer_that_cannot_represent_one_side_is_refused(folder, tmp_path):
    letters = "".join(sorted(set("".join(b for _, b in pairs(300)))))
    letters_with_gaps(letters).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(
        InputError, match=r"characters of the source side of the train split of .*corpus \(.*more than 1%"
    ):
        module(folder, tmp_path, tokenizer=str(tmp_path), end_token="</s>").prepare_data()


# ---- splits by name


def test_splits_are_found_by_the_words_of_their_names(tmp_path, capsys):
    for name, split in (("train", "train"), ("dev", "validation"), ("newstest-test", "test")):
        write(tmp_path / "corpus", name, EXPECTED[split])
    write(tmp_path / "corpus", "monolingual", pairs(3))
    write(tmp_path / "corpus" / "old", "train", pairs(3))
    assert loaded(tmp_path / "corpus", tmp_path) == EXPECTED
    told = capsys.readouterr().out
    assert "not used of" in told
    assert "monolingual" in told
    assert "old/train" in told


def test_shards_of_tables_are_one_split(tmp_path, capsys):
    (tmp_path / "corpus").mkdir()
    for split, rows in EXPECTED.items():
        for i in range(2):
            name = f"{split.replace('validation', 'val')}-0000{i}-of-00002.csv"
            Dataset.from_list([{"de": a, "en": b} for a, b in rows[i::2]]).to_csv(tmp_path / "corpus" / name)
    found = loaded(tmp_path / "corpus", tmp_path)
    assert {split: sorted(rows) for split, rows in found.items()} == {s: sorted(rows) for s, rows in EXPECTED.items()}
    assert "trained on" not in capsys.readouterr().out


def test_aligned_files_of_another_encoding(tmp_path):
    rows = [(f"Grüße {i}", f"café {i}") for i in range(40)]
    write(tmp_path / "corpus", "train", rows)
    for path in (tmp_path / "corpus").iterdir():
        path.write_bytes(path.read_text().encode("cp1252"))
    shares = {"validation_fraction": 0, "test_fraction": 0}
    reading = Reading(encoding="cp1252")
    assert loaded(tmp_path / "corpus", tmp_path, reading=reading, **shares) == {"train": rows}
    with pytest.raises(InputError, match="40 of the 40 rows"):
        loaded(tmp_path / "corpus", tmp_path, **shares)
