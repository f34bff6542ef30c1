"""Malformed rows of every kind of source: left out and told of, or refused."""

import gzip
import json
from multiprocessing import get_context

import pytest

from src.data import ClassificationDataModule, LMDataModule, MLMDataModule, TranslationDataModule
from src.data.json_rows import readable_json
from src.data.malformed import DEFAULT
from src.errors import InputError
from src.tokenization import train_wordpiece
from tests.conftest import prepared

GOOD = [f"Row {i} says something. It is number {i} of them." for i in range(40)]
# what is wrong with a line of JSON -> the line
BAD_LINES = {
    "invalid UTF-8": b'{"text": "caf\xe9"}',
    "no JSON": b'{"text": "cut o',
    "wrong type": b'{"text": 5}',
    "no text": b'{"text": null}',
    "empty": b'{"text": " "}',
}


def good_lines(texts=GOOD):
    return [json.dumps({"text": text}).encode() for text in texts]


def lm(tmp_path, source, **options):
    options = {"tokenizer": "byte", "seq_len": 8, "cache_dir": str(tmp_path / "cache"), **options}
    return prepared(LMDataModule(source=str(source), validation_fraction=0.1, test_fraction=0.0, **options))


@pytest.mark.parametrize("reason", BAD_LINES)
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_a_malformed_line_is_left_out_or_refused(tmp_path, capsys, reason, suffix):
    path, clean = tmp_path / f"text{suffix}", tmp_path / "clean.jsonl"
    content = b"\n".join([*good_lines()[:20], BAD_LINES[reason], *good_lines()[20:], BAD_LINES[reason]])
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    clean.write_bytes(b"\n".join(good_lines()))
    found = lm(tmp_path, path)
    out = capsys.readouterr().out
    assert f"{reason} (row" in out
    expected = lm(tmp_path, clean)
    assert sum(info["documents"] for info in found.info.values()) == 40
    assert sum(info["tokens"] for info in found.info.values()) == sum(info["tokens"] for info in expected.info.values())
    with pytest.raises(InputError, match=rf"row \d+ of .* is malformed \({reason}\)"):
        lm(tmp_path, path, strict=True)


def test_the_count_and_the_first_of_each_kind_are_told(tmp_path, capsys):
    path = tmp_path / "text.jsonl"
    path.write_bytes(b"\n".join([*good_lines(), *[b'{"text": 5}'] * 7]))
    lm(tmp_path, path, max_malformed=0.2)
    out = capsys.readouterr().out
    assert "7 rows, wrong type (row 41: '{\"text\": 5}', row 42: " in out
    assert "row 43: '{\"text\": 5}', ...)" in out
    assert "row 44" not in out


@pytest.mark.parametrize(
    ("name", "good", "bad", "remedies"),
    [
        ("rows.jsonl", '{"text": "good"}', "no JSON", "mend them, or leave them out by --data.max_malformed 0.34"),
        ("rows.jsonl", '{"text": "good"}', '{"text": "\xe9"}', "mend them, or set --data.encoding, or leave them out"),
        ("rows.csv", "text,id\n1,2", "3,4,5", "mend them, or set --data.delimiter, or leave them out"),
    ],
)
def test_a_refusal_of_many_rows_says_what_lets_them_be_read(tmp_path, name, good, bad, remedies):
    rows = "\n".join([good, *[good.splitlines()[-1]] * 39, *[bad] * 20])
    (tmp_path / name).write_text(rows, encoding="latin-1")
    with pytest.raises(InputError, match=f"20 of the 60 rows of .*; {remedies}"):
        lm(tmp_path, tmp_path / name)
    lm(tmp_path, tmp_path / name, max_malformed=0.34)


def test_processes_that_read_one_file_at_once_get_the_same_copy(tmp_path):
    """As the ranks of a stream do; each file is another chance to meet."""
    files = [tmp_path / f"{i}.jsonl" for i in range(40)]
    for file in files:
        file.write_bytes(b"\n".join([*good_lines(), BAD_LINES["no JSON"]]))
    with get_context("fork").Pool(2) as pool:
        copies = pool.map(_copy_of, [file for file in files for _ in (0, 1)], chunksize=1)
    for first, second in zip(copies[::2], copies[1::2], strict=True):
        assert first == second
        assert first.read_bytes().splitlines() == good_lines()


def _copy_of(file):
    return readable_json(file, ("text",), ("text",), DEFAULT, file.parent / "cache")


def test_a_table_loses_what_is_not_utf8_or_of_another_width(tmp_path, capsys):
    path = tmp_path / "text.csv"
    rows = [f'{i},"{text}"'.encode() for i, text in enumerate(GOOD)]
    rows.insert(5, b'99,"quoted, with a\nline feed and a comma"')
    path.write_bytes(b"\n".join([b"id,text", *rows[:10], b"1,caf\xe9", b"1,2,3", *rows[10:]]))
    found = lm(tmp_path, path)
    out = capsys.readouterr().out
    assert "1 row, invalid UTF-8 (row 12: " in out
    assert "1 row, wrong number of fields (row 13: '1,2,3')" in out
    assert sum(info["documents"] for info in found.info.values()) == 41
    with pytest.raises(InputError, match="malformed"):
        lm(tmp_path, path, strict=True)


def test_a_folder_keeps_its_splits(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(b"\n".join([*good_lines(), b"broken"]))
    (folder / "validation.jsonl").write_bytes(b"\n".join(good_lines(GOOD[:7])))
    assert {split: info["documents"] for split, info in lm(tmp_path, folder).info.items()} == {
        "train": 40,
        "validation": 7,
    }


def test_a_document_of_a_text_file_may_be_malformed(tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_bytes(b"\n\n".join([*(text.encode() for text in GOOD), b"caf\xe9 au lait"]))
    found = lm(tmp_path, path, document_separator="\n\n")
    assert sum(info["documents"] for info in found.info.values()) == 40
    assert "invalid UTF-8 (document 41: " in capsys.readouterr().out
    with pytest.raises(InputError, match=r"document 41 of .*text\.txt is malformed"):
        lm(tmp_path, path, document_separator="\n\n", strict=True)
    remedy = "not UTF-8: .*; name its encoding by --data.encoding, or convert it first"
    with pytest.raises(InputError, match=remedy):  # it is one document
        lm(tmp_path, path)


def test_pretraining_leaves_them_out_too(tmp_path, capsys):
    path = tmp_path / "text.jsonl"
    path.write_bytes(b"\n".join([*good_lines(), *BAD_LINES.values()]))
    options = {"validation_fraction": 0.1, "test_fraction": 0.0, "tokenizer_vocab_size": 100, "seq_len": 32}
    options["max_malformed"] = 0.1
    data = prepared(MLMDataModule(source=str(path), cache_dir=str(tmp_path / "cache"), **options))
    data.setup("fit")
    out = capsys.readouterr().out
    for reason in BAD_LINES:
        assert f"1 row, {reason} (row" in out
    with pytest.raises(InputError, match="malformed"):
        prepared(MLMDataModule(source=str(path), strict=True, cache_dir=str(tmp_path / "cache"), **options))


def test_labelled_rows_lose_what_has_no_text_or_label(tmp_path, capsys):
    tokenizer = tmp_path / "tokenizer.json"
    train_wordpiece(GOOD, 120).save(str(tokenizer))
    rows = [json.dumps({"text": text, "label": ["no", "yes"][i % 2]}).encode() for i, text in enumerate(GOOD)]
    rows += [b'{"text": null, "label": "no"}', b'{"text": "a", "label": null}', b'{"text": "", "label": "no"}']
    rows += [b'{"text": 5, "label": "no"}', b'{"text": "caf\xe9", "label": "no"}']
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(rows))

    def data(**options):
        named = {"tokenizer": str(tokenizer), "source": str(path), "cache_dir": str(tmp_path / "cache")}
        return prepared(ClassificationDataModule(**named, **options))

    found = data()
    found.setup("fit")
    assert sum(counts["rows"] for counts in found.summary().values()) == 40
    out = capsys.readouterr().out
    for reason in ("no value", "empty", "wrong type", "invalid UTF-8"):
        assert f"{reason} (row" in out
    with pytest.raises(InputError, match="malformed"):
        data(strict=True)


@pytest.fixture
def pairs(tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    for split, n in (("train", 40), ("validation", 5), ("test", 5)):
        for language in ("en", "fr"):
            (folder / f"{split}.{language}").write_text("".join(f"{text}\n" for text in GOOD[:n]))
    return folder


def translation(tmp_path, folder, **options):
    options = {"tokenizer": "byte", "cache_dir": str(tmp_path / "cache"), **options}
    return prepared(TranslationDataModule(source=str(folder), **options))


def test_pairs_lose_both_sides_and_evaluation_loses_none(tmp_path, capsys, pairs):
    lines = (pairs / "train.en").read_bytes().split(b"\n")
    lines[3], lines[7] = b"caf\xe9", b""
    lines[9] = b"long " * 100
    (pairs / "train.en").write_bytes(b"\n".join(lines))
    data = translation(tmp_path, pairs)
    data.setup("fit")
    out = capsys.readouterr().out
    assert data.info["train"]["pairs"] == 37
    assert out.count("1 row, invalid UTF-8 (line 4)") == 1
    assert "1 row, empty (pair 7: ' | " in out
    assert "1 row, over-long (pair 9: 'long long" in out
    with pytest.raises(InputError, match=r"train\.en is not UTF-8"):
        translation(tmp_path, pairs, strict=True)
    (pairs / "validation.en").write_bytes((pairs / "validation.en").read_bytes().replace(b"Row 2", b"caf\xe9"))
    with pytest.raises(InputError, match=r"validation\.en is not UTF-8"):
        translation(tmp_path, pairs)


def test_pairs_of_json_lose_malformed_lines(tmp_path, capsys):
    folder = tmp_path / "rows"
    folder.mkdir()
    rows = [json.dumps({"translation": {"en": text, "fr": text}}).encode() for text in GOOD]
    rows += [b'{"translation": {"en": 5, "fr": "x"}}', b"{"]
    (folder / "train.jsonl").write_bytes(b"\n".join(rows))
    data = translation(tmp_path, folder)
    assert sum(info["pairs"] for info in data.info.values()) == 40
    out = capsys.readouterr().out
    assert "wrong type (row 41" in out
    assert "no JSON (row 42" in out
