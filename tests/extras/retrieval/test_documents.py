"""Documents out of real files of every kind, and what cannot be read."""

import json
from pathlib import Path

import pytest
from datasets import Dataset
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from src.errors import InputError
from src.extras.retrieval.documents import read_documents
from src.extras.retrieval.passages import Document


def read(source, tmp_path, column="text"):
    return list(read_documents(str(source), None, column, tmp_path / "cache"))


def write_pdf(path: Path, text: str) -> None:
    """A page with a line of text."""
    writer = PdfWriter()
    page = writer.add_blank_page(300, 200)
    font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    font = DictionaryObject({NameObject(key): NameObject(value) for key, value in font.items()})
    fonts = DictionaryObject({NameObject("/F1"): font})
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    content = DecodedStreamObject()
    content.set_data(f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode())
    page[NameObject("/Contents")] = content
    writer.write(path)


HTML = """<!doctype html><html><head><title>Cats</title><style>p {color: red}</style></head>
<body><h1>On <em>cats</em></h1><p>A cat   sat&nbsp;here.</p><p>It left.<br>Twice.</p><script>alert("no")</script>
<table><tr><td>one</td><td>two</td></tr></table></body></html>"""


def test_a_folder_of_every_kind(tmp_path):
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "a.txt").write_text("A plain text.")
    (folder / "b.md").write_text("# Heading\n\nSome *words*.")
    (folder / "c.html").write_text(HTML)
    write_pdf(folder / "deep/d.pdf", "A page about dogs.")
    (folder / "picture.png").write_bytes(b"\x89PNG\x00")
    (folder / ".hidden/x.txt").write_text("no")
    assert read(folder, tmp_path) == [
        Document("a.txt", "A plain text."),
        Document("b.md", "# Heading\n\nSome *words*."),
        Document("c.html", "Cats\nOn cats\nA cat sat here.\nIt left.\nTwice.\none\ntwo"),
        Document("deep/d.pdf", "A page about dogs."),
    ]
    assert read(folder / "a.txt", tmp_path) == [Document("a.txt", "A plain text.")]


def test_a_row_is_a_document_named_by_its_source(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"body": "One.", "source": "first"}\n{"body": "Two.", "source": null}\n')
    assert read(tmp_path / "rows.jsonl", tmp_path, "body") == [
        Document("first", "One."),
        Document("rows.jsonl:train:1", "Two."),
    ]
    (tmp_path / "rows.csv").write_text("text\nOne.\n")
    assert read(tmp_path / "rows.csv", tmp_path) == [Document("rows.csv:train:0", "One.")]


def test_a_folder_of_tables_is_read_and_what_is_left_out_is_told(tmp_path, capsys):
    """As a data set of the hub is laid out: the data are in a folder below, and a file describes them."""
    data = tmp_path / "set/data"
    data.mkdir(parents=True)
    (tmp_path / "set/README.md").write_text("# A data set")
    (data / "train.jsonl").write_text('{"text": "One."}\n{"text": "Two."}\n')
    (data / "test.csv").write_text("text\nThree.\n")
    assert [document.text for document in read(tmp_path / "set", tmp_path)] == ["Three.", "One.", "Two."]
    assert "left out of" in (told := capsys.readouterr().out)
    assert "1 .md, which are not read: not .json, .jsonl, .csv, .tsv, .parquet (README.md)" in told
    # beside documents tables are not: they may be anything
    (tmp_path / "set/page.html").write_text("<p>Four.</p>")
    assert [document.text for document in read(tmp_path / "set", tmp_path)] == ["# A data set", "Four."]
    told = capsys.readouterr().out
    assert "1 .csv, 1 .jsonl, which are not read: not .txt, .md, .html, .htm, .pdf, .docx (data/test.csv, ...)" in told


def test_word_documents_are_read_in_their_order(tmp_path):
    docx = pytest.importorskip("docx")
    document = docx.Document()
    document.add_heading("Über Katzen")
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "eins", "zwei"
    document.add_paragraph("Sie schläft.")
    document.save(tmp_path / "a.docx")
    assert read(tmp_path / "a.docx", tmp_path) == [Document("a.docx", "Über Katzen\neins\tzwei\nSie schläft.")]


def test_files_of_a_folder_that_cannot_be_read_are_left_out_and_told(tmp_path, capsys):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "good.txt").write_text("A good text.")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "empty.md").touch()
    for name in ("broken.pdf", "broken.docx", "old.doc", "a.png", "b.png"):
        (folder / name).write_bytes(b"\x00 nothing")
    assert [document.source for document in read(folder, tmp_path)] == ["good.txt"]
    told = capsys.readouterr().out
    assert f"left out of {folder}: 4 files that cannot be read (" in told
    for reason in ("empty.md is empty", "broken.pdf is no PDF that can be read", "; ..."):
        assert reason in told
    assert f"left out of {folder}: 2 .png, 1 .doc, which are not read" in told


@pytest.mark.parametrize("bad", [5, 1.5, True, ["a"], {"a": "b"}])
def test_a_row_that_is_no_text_is_left_out_and_counted(tmp_path, capsys, bad):
    good = [f"Text {i}." for i in range(20)]
    rows = [{"text": text} for text in [good[0], bad, None, *good[1:]]]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    found = [document.text for document in read(tmp_path / "rows.jsonl", tmp_path)]
    assert found == [good[0], "", *good[1:]]
    assert "1 row, wrong type (row 2" in capsys.readouterr().out
    # nor do a few good rows save a file whose rows are something else
    (tmp_path / "all.jsonl").write_text(json.dumps({"text": bad}))
    with pytest.raises(InputError, match=r"1 of the 1 row of .* cannot be read: 1 row, wrong type"):
        read(tmp_path / "all.jsonl", tmp_path)


def test_a_column_of_numbers_is_no_text(tmp_path):
    Dataset.from_list([{"text": 1}, {"text": 2}]).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"column 'text' of .* holds no text"):
        read(tmp_path / "rows.parquet", tmp_path)


def test_what_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "others").mkdir()
    (tmp_path / "others/picture.png").write_bytes(b"\x89PNG\x00")
    (tmp_path / "binary.txt").write_bytes(b"\x00\xff\xfe")
    (tmp_path / "binary.html").write_bytes(b"<p>\xff\xfe")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (tmp_path / "rows.jsonl").write_text('{"body": "One."}\n')
    for name, message in [
        ("empty", "is empty: put .txt"),
        ("others", "has no .txt"),
        ("others/picture.png", "no kind of file that can be read"),
        ("binary.txt", "is not UTF-8: byte 1.*name its encoding by --data.encoding, or convert it first"),
        ("binary.html", "is not UTF-8: byte 3"),
        ("broken.pdf", "is no PDF that can be read"),
        ("rows.jsonl", "has no column 'text'"),
        ("none.txt", "there is no file"),
    ]:
        with pytest.raises(InputError, match=message):
            read(tmp_path / name, tmp_path)
    with pytest.raises(InputError, match="the source of the documents is ''"):
        list(read_documents("", None, "text", tmp_path))
