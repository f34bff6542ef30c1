"""Tables and JSON of every make, read by one reader for all data."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.data.classification import LabelledSource
from src.data.corpora import Corpus, documents
from src.data.malformed import Reading
from src.data.parallel import ParallelCorpus
from src.data.tables import Dialect, table_rows
from src.errors import InputError

PLENTY = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
FIELD = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('",;\t\n\r\u2028NA'), max_size=6)


@PLENTY
@given(
    rows=st.lists(st.tuples(FIELD, FIELD, FIELD), min_size=1, max_size=6),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8-sig", "utf-8", "utf-16"]),
)
def test_what_is_written_with_quotes_is_read_as_it_was(tmp_path, rows, delimiter, end, encoding):
    path = tmp_path / "rows.csv"
    out = io.StringIO(newline="")
    # before Python 3.13 a writer puts no quotes around a carriage return
    quoting = csv.QUOTE_ALL if any("\r" in "".join(row) for row in rows) else csv.QUOTE_MINIMAL
    csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows([("a", "b", "c"), *rows])
    path.write_bytes(out.getvalue().encode(encoding))
    found = list(table_rows(path, Dialect(delimiter, True, encoding, "\n")))
    assert [(tuple(row.value), row.reason) for row in found[1:]] == [(row, None) for row in rows]


@PLENTY
@given(content=st.text('ab",\n', max_size=40), quoted=st.booleans())
def test_no_line_is_swallowed_or_read_twice(tmp_path, content, quoted):
    path = tmp_path / "rows.csv"
    path.write_text("x,y\n" + content)
    rows = list(table_rows(path, Dialect(",", quoted, "utf-8", "\n")))
    # but for blank lines, every line is part of just one row, in order
    assert "".join(row.raw for row in rows).replace("\n", "") == f"x,y{content}".replace("\n", "")
    assert all(len(row.value) == 2 for row in rows if row.reason is None)


def test_an_unclosed_quote_costs_its_own_row_alone(tmp_path):
    path = tmp_path / "rows.csv"
    lines = ["x,y", *(f'"text, {i}",{i}' for i in range(6))]
    lines[3] = '"unclosed,9'
    path.write_text("\n".join([*lines, '"two\nlines",7']))
    rows = list(table_rows(path, Dialect(",", True, "utf-8", "\n")))
    assert [row.number for row in rows if row.reason] == [4]
    assert rows[-1].value == ["two\nlines", "7"]


TEXTS = [f'row {i} says "NA", or so' for i in range(40)] + ["NA", "null", "None", "007", 'one "quote', "“quoted”"]


def write(path, delimiter=",", encoding="utf-8", quoting=csv.QUOTE_MINIMAL, texts=TEXTS):
    """A table whose columns serve every reader: two languages, a label, and a text."""
    out = io.StringIO(newline="")
    write_row = csv.writer(out, delimiter=delimiter, quoting=quoting).writerow
    if delimiter == "\t" and quoting == csv.QUOTE_NONE:
        write_row = lambda row: out.write("\t".join(row) + "\n")  # noqa: E731
    for row in [
        ("text", "label", "fr"),
        *((text, ["NA", "None", "yes"][i % 3], f"{i}") for i, text in enumerate(texts)),
    ]:
        write_row(row)
    content = out.getvalue().encode(encoding)
    path.write_bytes(gzip.compress(content) if path.name.lower().endswith(".gz") else content)


def read_corpus(path, cache, reading=Reading()):  # noqa: B008
    """The texts of a table, in no order, as every reader gives them."""
    splits = Corpus(str(path), reading=reading).splits(cache)
    return sorted(text for rows in splits.values() for text in documents(rows))


def read_labelled(path, cache, reading=Reading()):  # noqa: B008
    splits, names = LabelledSource(str(path), None, ("text",), 0.1, 0.1, reading).labelled(cache)
    assert names == ["NA", "None", "yes"]
    return sorted(text for rows in splits.values() for (text,), _ in rows)


def read_pairs(path, cache, reading=Reading()):  # noqa: B008
    folder = path.with_name("pairs")
    folder.mkdir()
    path.rename(folder / path.name)
    corpus = ParallelCorpus(str(folder), "text", "fr", reading=reading)
    return sorted(source for pairs in corpus.load(cache).values() for source, _ in pairs)


@pytest.fixture(params=[read_corpus, read_labelled])
def read_rows(request):
    """A reader of rows, which an extra may have more of."""
    return request.param


@pytest.fixture(params=[read_corpus, read_labelled, read_pairs])
def read(request):
    """A reader of rows or of pairs."""
    return request.param


@pytest.mark.parametrize("name", ["train.csv", "train.csv.gz", "train.TSV", "train.tsv.GZ"])
def test_every_reader_reads_the_same_rows(tmp_path, read, name):
    write(tmp_path / name, *("\t", "utf-8", csv.QUOTE_NONE) if "tsv" in name.lower() else (",",))
    assert read(tmp_path / name, tmp_path / "cache") == sorted(TEXTS)


def test_every_reader_leaves_out_and_counts_the_same_rows(tmp_path, read, capsys):
    path = tmp_path / "train.csv"
    write(path)
    with path.open("ab") as file:
        file.write(b"too,many,fields,here\n\xff\xfe,yes,1\n")
    assert read(path, tmp_path / "cache") == sorted(TEXTS)
    out = capsys.readouterr().out
    assert "1 row, wrong number of fields (row 48: 'too,many,fields,here')" in out
    assert "1 row, invalid UTF-8 (row 49" in out


def test_every_reader_refuses_a_larger_share_unless_it_is_allowed(tmp_path, read):
    write(tmp_path / "train.csv")
    with (tmp_path / "train.csv").open("a") as file:
        file.write("one\n" * 3)
    with pytest.raises(InputError, match=r"3 of the 49 rows of .*train.csv cannot be read: 3 rows, wrong number"):
        read(tmp_path / "train.csv", tmp_path / "cache")
    path = next(tmp_path.rglob("train.csv"))
    if read is not read_pairs:
        assert len(read(path, tmp_path / "cache", Reading(max_malformed=0.1))) == len(TEXTS)


ACCENTED = [f"schöne Grüße, à bientôt {i}" for i in range(20)]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize(
    ("delimiter", "encoding"), [(";", "utf-8"), (";", "cp1252"), ("\t", "utf-16"), ("|", "utf-8-sig")]
)
def test_delimiter_and_encoding_are_found_and_told(tmp_path, capsys, delimiter, encoding, quoting):
    path = tmp_path / "rows.csv"
    write(path, delimiter, encoding, quoting, ACCENTED)
    assert read_corpus(path, tmp_path / "cache") == sorted(ACCENTED)
    out = capsys.readouterr().out
    assert f"delimiter {delimiter!r}" in out
    if encoding in ("cp1252", "utf-16"):
        assert f"encoding {encoding!r}" in out


def test_an_encoding_that_is_not_plain_is_refused_and_can_be_named(tmp_path):
    path, texts = tmp_path / "rows.csv", [f"zażółć gęślą jaźń {i}" for i in range(20)]
    write(path, encoding="cp1250", texts=texts)
    with pytest.raises(InputError, match=r"20 of the 20 rows .* mend them, or set --data.encoding$"):
        read_corpus(path, tmp_path / "cache")
    assert read_corpus(path, tmp_path / "cache", Reading(encoding="cp1250")) == sorted(texts)
    for wrong in ({"encoding": "latin-99"}, {"delimiter": "ab"}, {"max_malformed": 1.5}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Reading(**wrong)


def test_quotes_between_tabs_are_quoting_only_where_the_rows_say_so(tmp_path):
    speech = ['"I came.', 'I saw."', '"All of it."', 'he said "yes"', *(f"row {i}" for i in range(40))]
    write(tmp_path / "speech.tsv", "\t", quoting=csv.QUOTE_NONE, texts=speech)
    assert read_labelled(tmp_path / "speech.tsv", tmp_path / "cache") == sorted(speech)
    long = [f'row {i}\nof "two" lines,\tand a tab' for i in range(20)]
    write(tmp_path / "long.tsv", "\t", texts=long)
    assert read_labelled(tmp_path / "long.tsv", tmp_path / "cache") == sorted(long)
    doubled = [f'say "{i}"' for i in range(20)]
    write(tmp_path / "doubled.tsv", "\t", texts=doubled)
    assert read_labelled(tmp_path / "doubled.tsv", tmp_path / "cache") == sorted(doubled)


def test_a_table_of_an_old_mac(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"text,n\r" + b"".join(b"row,%d\r" % i for i in range(30)))
    assert len(read_corpus(tmp_path / "rows.csv", tmp_path / "cache")) == 30


# ---- JSON

OBJECTS = [{"text": f"row {i}\u2028 \U0001f600", "label": ["NA", "None", "yes"][i % 3]} for i in range(40)]
WHOLE = {
    "one a line": "\n".join(map(json.dumps, OBJECTS)),
    "with a mark": "\ufeff" + "\r\n".join(map(json.dumps, OBJECTS)),
    "a list": json.dumps(OBJECTS),
    "a printed list": "\n\n" + json.dumps(OBJECTS, indent=2),
    "a list, a row a line": "[\n" + ",\n".join(map(json.dumps, OBJECTS)) + "\n]",
    "under a key": json.dumps({"version": 1, "data": OBJECTS}),
    "printed under a key": "\ufeff" + json.dumps({"data": OBJECTS, "tags": ["a"]}, indent=1),
}


@pytest.mark.parametrize("shape", WHOLE)
def test_json_is_read_whole(tmp_path, read_rows, shape):
    path = tmp_path / "rows.json"
    path.write_text(WHOLE[shape], encoding="utf-8", newline="")
    assert read_rows(path, tmp_path / "cache") == sorted(row["text"] for row in OBJECTS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps({"train": OBJECTS, "more": OBJECTS}, indent=1), "2 lists of rows under its keys"),
        ("\n".join(json.dumps(row, indent=1) for row in OBJECTS), "cannot be read"),
        ("\n".join([*map(json.dumps, OBJECTS), "{", "[1]", '"a"']), "3 of the 43 rows"),
        (json.dumps(["a", "b"]), "2 of the 2 rows"),
        (json.dumps({"a": 1}), "has no column 'text': it has 'a'"),
    ],
)
def test_json_that_is_no_rows_is_refused(tmp_path, content, message):
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_corpus(tmp_path / "rows.json", tmp_path / "cache")


def test_half_a_character_costs_its_own_row_alone(tmp_path, capsys):
    rows = [*map(json.dumps, OBJECTS), r'{"text": "a \ud83d b"}', r'{"text": "a", "label": ["\uDE00"]}']
    for name, content in (("lines.jsonl", "\n".join(rows)), ("list.json", f"[{','.join(rows)}]")):
        (tmp_path / name).write_text(content)
        assert len(read_corpus(tmp_path / name, tmp_path / "cache")) == 40
        assert "2 rows, lone surrogate (row 41: " in capsys.readouterr().out
