"""Labelled tables as people have them: which rows are held out, what is trained on, and what is refused."""

import codecs

import pytest

from src.data import ClassificationDataModule
from src.errors import InputError
from tests.conftest import prepared

SUBJECTS = ["Das Essen", "Der Kaffee", "Die Bedienung", "Das Frühstück", "Die Küche"]
VERDICTS = [("schmeckt köstlich", "gut"), ("war großartig; immer wieder", "gut"), ("enttäuscht", "schlecht")]
ROWS = [
    (f'{subject} {verdict}, sagt "{i}"', label)
    for i, (subject, (verdict, label)) in enumerate((s, v) for _ in range(8) for s in SUBJECTS for v in VERDICTS)
]


def write(path, rows=ROWS, header="Überschrift;Urteil", end="\n", encoding="utf-8", mark=b""):
    lines = [header, *('"' + text.replace('"', '""') + '";' + label for text, label in rows)]
    path.write_bytes(mark + "".join(filter(None, [line and line + end for line in lines])).encode(encoding))
    return path


def load(path, **changes):
    options = {"tokenizer": "wordpiece", "text_column": "Überschrift", "label_column": "Urteil"}
    cache = path.with_name("cache")
    return prepared(ClassificationDataModule(source=str(path), cache_dir=str(cache), **{**options, **changes}))


@pytest.mark.parametrize(
    "made",
    [
        {"encoding": "latin-1"},
        {"encoding": "latin-1", "end": "\r\n"},
        {"mark": codecs.BOM_UTF8, "end": "\r\n"},
        {"encoding": "utf-16"},
    ],
)
def test_a_german_table_of_any_make(tmp_path, capsys, made):
    data = load(write(tmp_path / "reviews.csv", **made))
    assert data.label_names == ["gut", "schlecht"]
    texts = {split: [text for (text,) in data.texts(split)] for split in ("train", "validation", "test")}
    assert sorted(text for of in texts.values() for text in of) == sorted(text for text, _ in ROWS)
    assert {split: len(of) for split, of in texts.items()} == {"train": 96, "validation": 12, "test": 12}
    assert "held out of the 120 rows of" in (out := capsys.readouterr().out)
    assert "12 for validation and 12 for test" in out
    # of its own vocabulary, with its umlauts
    assert "großartig" in data.tokenizer.decode(data.tokenizer.encode("großartig").ids)


def test_rows_of_equal_texts_are_in_one_split_and_counted(tmp_path, capsys):
    data = load(write(tmp_path / "reviews.csv", ROWS[:60] * 2 + ROWS[:5]))
    texts = [{text for (text,) in data.texts(split)} for split in ("train", "validation", "test")]
    assert not texts[0] & texts[1]
    assert not (texts[0] | texts[1]) & texts[2]
    assert "65 rows repeat the text of another" in capsys.readouterr().out


def test_of_each_label_some_row_is_trained_on(tmp_path):
    rare = [(f"Einmalig {i}", f"Klasse {i}") for i in range(30)]
    data = load(write(tmp_path / "reviews.csv", ROWS + rare))
    assert set(data.targets("train").ids.tolist()) == set(range(32))


def test_labels_may_be_numbers_and_texts_empty(tmp_path, capsys):
    rows = [(text, str(int(label == "gut"))) for text, label in ROWS]
    data = load(write(tmp_path / "reviews.csv", [*rows, (" ", "1"), ("Ohne Urteil", "")]))
    assert data.label_names == ["0", "1"]
    assert sum(counts["rows"] for counts in data.summary().values()) == len(ROWS)
    assert "2 rows, empty (row " in capsys.readouterr().out


def test_pairs_with_tabs_between_them(tmp_path):
    lines = [
        "first\tsecond\tlabel",
        *(f"Ein Satz {i}\tUnd noch {i % 7}\t{'ja' if i % 2 else 'nein'}" for i in range(40)),
    ]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines))
    columns = {"text_column": "first", "second_text_column": "second", "label_column": "label"}
    data = load(tmp_path / "pairs.tsv", **columns)
    assert data.texts("test")[0][1].startswith("Und noch")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"header": ""}, r"no column 'Überschrift': its first line, .*, has 'Das Essen .*', 'gut'"),
        (
            {"header": "Text;Urteil"},
            r"no column 'Überschrift': its first line, .*, has 'Text', 'Urteil'; name it by --data.text_column",
        ),
        ({"header": "Überschrift;Label"}, r"no column 'Urteil': .*; name it by --data.label_column"),
        ({"rows": [(text, "gut") for text, _ in ROWS]}, r"column 'Urteil' of .* has the labels \['gut'\]: two are"),
        ({"rows": [(t, f"{i}") for i, (t, _) in enumerate(ROWS)]}, "has 96 labels in 96 rows: name another label"),
        ({"rows": [("Gleich", "gut"), ("Gleich", "schlecht")] * 9}, "has 1 different rows: none is left to train on"),
    ],
)
def test_what_is_no_labelled_table_is_refused(tmp_path, made, message):
    with pytest.raises(InputError, match=message):
        load(write(tmp_path / "reviews.csv", **made))
