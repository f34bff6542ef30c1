"""Text files are read in pieces, and a document of many pieces has the tokens of the whole."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from src.coverage import MeasuredTokenizer
from src.data import LMDataModule, MLMDataModule, texts
from src.data.corpora import Corpus, Pieces, documents
from src.data.store import encode
from src.data.texts import Piece, cut, read_documents
from src.tokenization import byte_tokenizer, character_tokenizer, train_bpe, train_unigram, train_wordpiece
from tests.conftest import prepared

ENDS = ("\t\n\n \n\r\n", "\n", "\r\n", " \n\n", "\n\t\n")
TEXT = "".join(f"Line {i} of it, with  spaces.{ENDS[i * i % 5]}" for i in range(300))
TOKENIZERS = {
    "bpe": lambda: train_bpe([TEXT], 400),
    "unigram": lambda: train_unigram([TEXT], 300),
    "wordpiece": lambda: train_wordpiece([TEXT], 200),
    "char": lambda: character_tokenizer([TEXT]),
    "byte": byte_tokenizer,
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


def test_the_tokens_of_the_pieces_are_those_of_the_whole(tokenizer):
    pieces = list(cut(TEXT, 200))
    assert len(pieces) > 40
    assert "".join(piece.text for piece in pieces) == TEXT
    assert [piece.is_last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    joined = [i for _, ids in encode(MeasuredTokenizer(tokenizer, "it"), pieces, [0]) for i in ids]
    assert joined == [*tokenizer.encode(TEXT, add_special_tokens=False).ids, 0]


@settings(max_examples=100, deadline=None)
@example("1" * 19 + "\r ")
@example("a" * 15 + "\xa0" + "a" * 10)
@given(st.text(alphabet="ab .\n\r\t\x0b\xa0é1'", max_size=300))
def test_a_piece_ends_where_a_token_of_gpt2_does(text):
    whole = BYTES.pre_tokenizer.pre_tokenize_str(text)
    pieces = list(cut(text, 20))
    assert "".join(piece.text for piece in pieces) == text
    assert max(len(piece.text) for piece in pieces) <= 20
    if all(b.text[:1].isspace() and not a.text[-1:].isspace() for a, b in pairwise(pieces)):
        assert [word for piece in pieces for word, _ in BYTES.pre_tokenizer.pre_tokenize_str(piece.text)] == [
            word for word, _ in whole
        ]


BYTES = byte_tokenizer()


@pytest.mark.parametrize("separator", [None, "\n\n", "%", "ab"])
@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet="ab%\n\r .", max_size=120), size=st.integers(1, 9), most=st.integers(3, 20))
def test_documents_do_not_depend_on_how_a_file_is_read(tmp_path_factory, separator, text, size, most):
    path = tmp_path_factory.getbasetemp() / "documents.txt"
    path.write_bytes(text.encode())

    def chunks(stream, encoding):
        with stream:
            content = stream.read().decode()
        return (content[i : i + size] for i in range(0, max(len(content), 1), size))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "read_chunks", chunks)
        pieces = list(read_documents(path, separator, "utf-8", most))
    divide = texts._pattern(separator)
    expected = [piece for part in (divide.split(text) if divide else [text]) for piece in cut(part, most)]
    assert pieces == expected


def test_a_file_that_is_cut_is_prepared_as_it_is_whole(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text(TEXT * 3)
    for kind, module, options in (("gpt", LMDataModule, {}), ("bert", MLMDataModule, {"next_sentence": False})):
        found = []
        for size in (texts.PIECE, 500):
            monkeypatch.setattr(texts.cut, "__defaults__", (size,))
            monkeypatch.setattr(texts.read_documents, "__defaults__", (size,))
            options |= {
                "source": str(tmp_path / "text.txt"),
                "seq_len": 16,
                "cache_dir": str(tmp_path / f"{kind}{size}"),
            }
            data = prepared(module(**options))
            found.append((data.info, {path.name: path.read_bytes() for path in data.folder.glob("*.npy")}))
        assert found[0] == found[1]


class Killed(BaseException):
    """As a signal ends a process: nothing is tidied up."""


@pytest.mark.parametrize("module", [LMDataModule, MLMDataModule])
def test_a_preparation_that_was_killed_goes_on(tmp_path, monkeypatch, module):
    monkeypatch.setattr("src.data.workers.n_processes", lambda: 1)  # what is watched is in this one
    monkeypatch.setattr("src.data.journal.EVERY", 0.0)
    monkeypatch.setattr(texts, "GROUP_CHARACTERS", 2000)
    monkeypatch.setattr(texts.cut, "__defaults__", (500,))
    monkeypatch.setattr(texts.read_documents, "__defaults__", (500,))
    (tmp_path / "text.txt").write_text(TEXT + "%" + "One. Two.\n%One\n%" * 200 + TEXT.replace("Line", "Row"))
    settings = {
        "source": str(tmp_path / "text.txt"),
        "document_separator": "%",
        "tokenizer_vocab_size": 300,
        "seq_len": 9,
    }
    whole = prepared(module(**settings, cache_dir=str(tmp_path / "whole")))
    encode, encoded = MeasuredTokenizer.encode, []

    def kill(tokenizer, pieces, with_words=False):
        if len(encoded) == 4:
            raise Killed
        encoded.append(pieces)
        return encode(tokenizer, pieces, with_words)

    killed = module(**settings, cache_dir=str(tmp_path / "killed"))
    monkeypatch.setattr(MeasuredTokenizer, "encode", kill)
    with pytest.raises(Killed):
        killed.prepare_data()
    rest = []
    monkeypatch.setattr(MeasuredTokenizer, "encode", lambda *a, **k: (rest.append(a[1]), encode(*a, **k))[1])
    resumed = prepared(module(**settings, cache_dir=str(tmp_path / "killed")))
    assert not any(pieces in rest for pieces in encoded[:2])  # the latest were not written down yet
    assert resumed.info == whole.info
    for path in whole.folder.glob("*.npy"):
        assert path.read_bytes() == (resumed.folder / path.name).read_bytes(), path.name
    assert {path.name for path in whole.folder.iterdir()} == {path.name for path in resumed.folder.iterdir()}


def test_memory_does_not_grow_with_a_text_file(tmp_path):
    """Of Python's objects, while a text of many chunks is read and cut by position."""
    peaks = []
    for size in (1, 2, 4):  # the first warms up
        (tmp_path / "text.txt").write_text("Some words of a line.\n\n" * 100_000 * size)
        tracemalloc.start()
        for rows in Corpus(str(tmp_path / "text.txt")).splits(tmp_path / "cache").values():
            assert any(piece.is_last for piece in Pieces(rows))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 200_000


def test_no_more_of_a_file_is_tokenised_at_once_than_a_group(tmp_path, monkeypatch):
    """Whatever the size of the file and of its documents."""
    monkeypatch.setattr("src.data.workers.n_processes", lambda: 1)  # what is watched is in this one
    monkeypatch.setattr(texts, "GROUP_CHARACTERS", 10_000)
    encode, sizes = MeasuredTokenizer.encode, []
    monkeypatch.setattr(
        MeasuredTokenizer, "encode", lambda *a, **k: (sizes.append(sum(map(len, a[1]))), encode(*a, **k))[1]
    )
    (tmp_path / "text.txt").write_text("Some words of a line.\n\n" * 40_000)
    for module in (LMDataModule, MLMDataModule):
        sizes.clear()
        options = {"source": str(tmp_path / "text.txt"), "tokenizer_vocab_size": 300, "cache_dir": str(tmp_path)}
        prepared(module(**options))
        assert sum(sizes) > 600_000
        assert max(sizes) < 10_000 + texts.PIECE


def test_pieces_of_one_document_are_one_document(tmp_path):
    (tmp_path / "a.txt").write_text("x" * (5 * texts.PIECE))
    (tmp_path / "b.txt").write_text("y" * 10)
    corpus = Corpus(str(tmp_path / "*.txt"), validation_fraction=0, test_fraction=0)
    rows = corpus.splits(tmp_path / "cache")["train"]
    assert len(rows) == 2
    assert list(documents(rows)) == ["x" * (5 * texts.PIECE), "y" * 10]
    assert len(list(rows)) == 6
    assert list(cut("z")) == [Piece("z")]
    assert np.mean([len(piece.text) for piece in cut("x" * 100, 10)]) == 10
