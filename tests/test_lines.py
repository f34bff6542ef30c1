"""Lines and texts: what ends one, what is part of it, and what is no text."""

import gzip
import io
import sys

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from src.errors import InputError
from src.files import counted, decode, is_text, read_lines, unescaped

# whatever splitlines would cut at, and ordinary characters
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\n") | st.sampled_from(
    "\x0b\x0c\x1c\x85\u2028"
)
LINE = st.text(CHARACTERS, max_size=8).filter(lambda line: not line.endswith("\r"))
PLENTY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@PLENTY
@given(lines=st.lists(LINE), end=st.sampled_from(["\n", "\r\n"]), marked=st.booleans(), packed=st.booleans())
def test_lines_are_read_as_they_were_written(tmp_path, lines, end, marked, packed):
    lines = [line.removeprefix("\ufeff") for line in lines]  # a mark at the beginning is none of the text
    content = ("\ufeff" * marked + "".join(line + end for line in lines)).encode()
    path = tmp_path / ("lines.txt.GZ" if packed else "lines.txt")
    path.write_bytes(gzip.compress(content) if packed else content)
    assert list(read_lines(path)) == lines


@PLENTY
@given(content=st.binary(max_size=40))
@example(content=b"\xef")  # half a byte order mark
@example(content=b"\xef\xbb")
@example(content=b"\xef\xbb\xbf")
def test_any_bytes_are_as_many_lines_as_line_feeds_end(tmp_path, content):
    path = tmp_path / "lines.txt"
    path.write_bytes(content)
    lines = list(read_lines(path, strict=False))
    assert len(lines) == content.removeprefix(b"\xef\xbb\xbf").count(b"\n") + (not content.endswith(b"\n")) * bool(
        content.removeprefix(b"\xef\xbb\xbf")
    )
    try:
        content.decode()
    except UnicodeDecodeError:
        assert not all(map(is_text, lines))
        with pytest.raises(InputError, match=r"line \d+ of .* is not UTF-8"):
            list(read_lines(path))
    else:
        assert list(read_lines(path)) == lines


def test_an_invalid_byte_on_standard_input_is_refused_with_its_line(monkeypatch):
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO("eins\u2028zwei\r\ncaf\xe9".encode("utf-8")[:-1] + b"\n"))
    )
    lines = read_lines(None)
    assert next(lines) == "eins\u2028zwei"
    with pytest.raises(InputError, match="line 2 of standard input is not UTF-8"):
        next(lines)


def test_a_text_has_no_mark_whatever_its_encoding():
    for encoding, written in (
        ("utf-8", "utf-8-sig"),
        ("UTF8", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("cp1252", "cp1252"),
    ):
        assert decode("schön".encode(written), encoding) == "schön"


def test_escapes_as_a_shell_passes_them_are_characters():
    assert unescaped(r"\n\n") == "\n\n"
    assert unescaped(r"\t--\r\n") == "\t--\r\n"


@pytest.mark.parametrize(
    ("count", "what", "written"),
    [
        (0, "rows", "0 rows"),
        (1, "rows", "1 row"),
        (2000, "rows", "2,000 rows"),
        (1, "batches", "1 batch"),
        (1, "sentences", "1 sentence"),
        (1, "bytes not represented", "1 byte not represented"),
    ],
)
def test_one_is_counted_in_the_singular(count, what, written):
    assert counted(count, what) == written
