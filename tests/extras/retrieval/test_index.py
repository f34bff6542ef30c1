"""The index: equal to one made at once however it came about, whole whatever happens, and found out when damaged."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from src.encoder import load_encoder
from src.errors import InputError
from src.extras.retrieval.changing import add, delete
from src.extras.retrieval.index import Index
from src.extras.retrieval.index_files import MANIFEST
from src.extras.retrieval.passages import Document
from tests.extras.retrieval.conftest import NOUNS, documents, settings, write_checkpoint

ROOT = Path(__file__).parents[3]
QUERIES = ["the river number3", "glacier and festival", "number7", "an old senator"]


ALL = 10_000  # more than there are: among equal scores it is open which are the best 50


def answers(index: Index, encoder) -> list[list[tuple[str, int, int, float]]]:
    """What an index finds, by words and by vectors; without the numbers, which depend on its history."""
    found = []
    for query in QUERIES:
        lists = [index.bm25(query, ALL)]
        if encoder is not None:
            lists.append(index.dense(encoder.vectors([query])[0], ALL))
        found += [sorted((*index.span(n), round(score, 4)) for n, score in one) for one in lists]
    return found


def test_a_passage_is_the_text_at_its_place(tmp_path, encoder):
    held = {document.source: document.text for document in documents(12)}
    add(tmp_path / "index", documents(12), settings(encoder), encoder)
    index = Index(tmp_path / "index")
    assert sorted(index.documents()) == sorted(held)
    for number in index.numbers.tolist():
        source, start, end, text = index.passage(number)
        assert text == held[source][start:end]
    vectors = encoder.vectors([index.passage(n).text for n in index.numbers.tolist()])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for query in QUERIES:  # exactly as by brute force
        vector = encoder.vectors([query])[0]
        cosines = vectors.astype(np.float64) @ vector
        expected = np.argsort(-cosines, kind="stable")[:7]
        found = index.dense(vector, 7)
        assert [n for n, _ in found] == index.numbers[expected].tolist()
        np.testing.assert_allclose([score for _, score in found], cosines[expected], atol=1e-6)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 9), st.integers(1, 4)),
        st.tuples(st.just("delete"), st.integers(0, 12), st.integers(1, 3)),
        st.tuples(st.just("replace"), st.integers(0, 12), st.just(1)),
    ),
    min_size=1,
    max_size=7,
)


@hypothesis_settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS, kind=st.sampled_from(["flat", "ivf"]))
def test_however_it_came_about_it_is_that_of_its_documents(tmp_path, encoder, operations, kind):
    folder = tmp_path / "index"
    shutil.rmtree(folder, ignore_errors=True)
    made = settings(encoder, kind=kind)
    held = {document.source: document for document in documents(2)}
    add(folder, held.values(), made, encoder)
    for what, start, n in operations:
        if what == "delete":
            sources = [f"doc{i}" for i in range(start, start + n) if f"doc{i}" in held]
            if sources:
                delete(folder, sources)
                held = {source: document for source, document in held.items() if source not in sources}
            continue
        fresh = documents(n, start)
        if what == "replace":
            fresh = [Document(document.source, f"Another {document.text}") for document in fresh]
        add(folder, fresh, made, encoder)
        held |= {document.source: document for document in fresh}
    index = Index(folder)
    assert sorted(index.documents()) == sorted(held)
    sizes = [len(segment) for segment in index.segments]
    assert all(2 * segment.alive().sum() >= len(segment) for segment in index.segments)
    assert len(sizes) <= 1 + np.log2(max(1, sum(sizes))) + len(operations) / 2
    if held and kind == "flat":
        shutil.rmtree(tmp_path / "at once", ignore_errors=True)  # of an example that failed
        add(tmp_path / "at once", held.values(), made, encoder)
        for found, expected in zip(answers(index, encoder), answers(Index(tmp_path / "at once"), encoder), strict=True):
            assert [row[:3] for row in found] == [row[:3] for row in expected]
            np.testing.assert_allclose([row[3] for row in found], [row[3] for row in expected], atol=2e-4)


def test_what_is_there_already_is_not_encoded_again(tmp_path, encoder, monkeypatch):
    add(tmp_path / "index", documents(8), settings(encoder), encoder)
    encoded = []
    vectors = type(encoder).vectors
    monkeypatch.setattr(
        type(encoder), "vectors", lambda self, texts, *kind: encoded.extend(texts) or vectors(self, texts, *kind)
    )
    found = add(tmp_path / "index", documents(10), settings(encoder), encoder)
    assert tuple(found) == (2, 0, 8, 0)
    assert all("number8" in text or "number9" in text for text in encoded)
    delete(tmp_path / "index", ["doc1"])
    assert len(encoded) == len([t for t in encoded if "number8" in t or "number9" in t])


def test_an_open_index_does_not_see_what_is_changed(tmp_path, encoder):
    add(tmp_path / "index", documents(6), settings(encoder), encoder)
    opened = Index(tmp_path / "index")
    before = answers(opened, encoder)
    delete(tmp_path / "index", ["doc0", "doc1", "doc2", "doc3"])  # its segment is written anew, and the old one removed
    assert answers(opened, encoder) == before
    assert answers(Index(tmp_path / "index"), encoder) != before


def test_all_documents_may_be_deleted(tmp_path, encoder):
    add(tmp_path / "index", documents(2), settings(encoder), encoder)
    assert delete(tmp_path / "index", ["doc0", "doc1"]) == 0
    assert answers(Index(tmp_path / "index"), encoder) == [[]] * 8
    add(tmp_path / "index", documents(1), settings(encoder), encoder)
    assert Index(tmp_path / "index").documents() == ["doc0"]


KILL = """
import os, signal, sys
from pathlib import Path
import src.extras.retrieval.changing as changing
from src.encoder import load_encoder
from tests.extras.retrieval.conftest import documents, settings
folder, checkpoint, where = sys.argv[1:]
encoder = load_encoder(checkpoint)
real = getattr(changing, where)
def killed(*arguments):
    if where != "write_manifest":
        real(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(changing, where, killed)
changing.add(Path(folder), documents(9, 3), settings(encoder), encoder)
"""


@pytest.mark.parametrize(
    ("where", "there"),
    [
        pytest.param("_prepare", False, marks=pytest.mark.slow),
        ("write_manifest", True),
        pytest.param("_prepare", True, marks=pytest.mark.slow),
        pytest.param("write_segment", True, marks=pytest.mark.slow),
    ],
)
def test_killed_while_indexing(tmp_path, checkpoint, encoder, where, there):
    """While encoding, after a segment was written, and just before the change happens: the old index serves."""
    folder = tmp_path / "index"
    if there:
        add(folder, documents(6), settings(encoder), encoder)
        before = answers(Index(folder), encoder)
    command = [sys.executable, "-c", KILL, str(folder), str(checkpoint), where]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    if there:
        assert answers(Index(folder), encoder) == before
    else:
        with pytest.raises(InputError, match="there is no index in"):
            Index(folder)
    add(folder, documents(9, 3), settings(encoder), encoder)
    assert len(Index(folder).documents()) == (12 if there else 9)
    named = {part.name for part in Index(folder).manifest.parts}
    assert {path.name for path in folder.iterdir()} - {".lock", MANIFEST} == named  # nothing of the killed is left


def test_damage_is_found(tmp_path, encoder):
    add(tmp_path / "index", documents(6), settings(encoder), encoder)
    files = [path for path in (tmp_path / "index").rglob("*") if path.is_file() and path.name != ".lock"]
    assert len(files) == 9
    for path in files:
        before = path.read_bytes()
        flipped = before[: len(before) // 2] + bytes([before[len(before) // 2] ^ 4]) + before[len(before) // 2 + 1 :]
        for content in (before[: len(before) // 2], flipped, None):
            path.unlink() if content is None else path.write_bytes(content)
            with pytest.raises(InputError, match=r"is damaged|there is no index") as error:
                Index(tmp_path / "index")
            assert "\n" not in str(error.value)
            path.write_bytes(before)
    Index(tmp_path / "index")


def test_another_encoder_is_refused(tmp_path, encoder):
    add(tmp_path / "index", documents(3), settings(encoder), encoder)
    index = Index(tmp_path / "index")
    index.check_encoder(encoder, "encoder.ckpt")
    same_shape = load_encoder(write_checkpoint(tmp_path / "other.ckpt", seed=1))
    narrower = load_encoder(write_checkpoint(tmp_path / "narrow.ckpt", d_model=16))
    for other, message in ((same_shape, "is not the one that made the vectors"), (narrower, "makes vectors of 16")):
        with pytest.raises(InputError, match=message):
            index.check_encoder(other, "other.ckpt")
        with pytest.raises(InputError, match="was made with other settings"):
            add(tmp_path / "index", documents(4), settings(other), other)
    add(tmp_path / "words", documents(3), settings(), None)
    with pytest.raises(InputError, match="has no vectors"):
        Index(tmp_path / "words").check_encoder(encoder, "encoder.ckpt")


def test_what_cannot_be_is_refused(tmp_path):
    made = settings()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("years of work")
    (tmp_path / "photos/segment-2024").mkdir(parents=True)
    for call, message in [
        (lambda: add(tmp_path / "full", documents(2), made, None), "holds thesis.txt and no index"),
        (lambda: add(tmp_path / "photos", documents(2), made, None), "holds segment-2024 and no index"),
        (lambda: add(tmp_path / "new", [Document("a", " \n ")], made, None), "no document with any words"),
        (
            lambda: add(tmp_path / "new", [Document("a", "x"), Document("a", "y")], made, None),
            "two documents are named",
        ),
        (lambda: delete(tmp_path / "nowhere", ["doc0"]), "there is no index in"),
    ]:
        with pytest.raises(InputError, match=message):
            call()
    assert {path.name for path in tmp_path.iterdir()} == {"full", "photos"}  # no folder was made for nothing
    assert (tmp_path / "photos/segment-2024").is_dir()
    add(tmp_path / "index", [*documents(2), Document("blank", "\n")], made, None)
    with pytest.raises(InputError, match="has no document 'doc7': nothing was deleted"):
        delete(tmp_path / "index", ["doc0", "doc7"])
    assert Index(tmp_path / "index").documents() == ["doc0", "doc1"]
    assert (tmp_path / "full/thesis.txt").read_text() == "years of work"


def test_words_are_stemmed_in_their_language(tmp_path):
    text = [Document("a", "The teachers were dancing."), Document("b", "Die Lehrer tanzten."), *documents(3)]
    for language, query in (("english", "teacher danced"), ("german", "tanzte"), ("none", "dancing")):
        add(tmp_path / language, text, settings(stemmer=language), None)
        index = Index(tmp_path / language)
        assert index.span(index.bm25(query, 1)[0][0])[0] == ("b" if language == "german" else "a")
    assert Index(tmp_path / "none").bm25("dance", 5) == []
    with pytest.raises(InputError, match="there is no stemmer 'klingon'"):
        add(tmp_path / "klingon", text, settings(stemmer="klingon"), None)


def test_a_query_does_not_depend_on_those_before_it(tmp_path):
    add(tmp_path / "index", documents(9), settings(), None)
    index = Index(tmp_path / "index")
    found = [index.bm25(query, 9) for query in QUERIES]
    assert all(found)
    assert found == [Index(tmp_path / "index").bm25(query, 9) for query in QUERIES]


def test_bm25_is_that_of_the_paper(tmp_path):
    """Robertson's weights in Lucene's form, in float64, with k1 1.5 and b 0.75."""
    texts = {d.source: d.text.lower().replace(".", "").split() for d in documents(6)}
    add(tmp_path / "index", documents(6), settings(stemmer="none", passage_len=500, overlap=0), None)
    index = Index(tmp_path / "index")
    mean = np.mean([len(words) for words in texts.values()])
    query = [NOUNS[0], NOUNS[3], "number2"]
    expected = {}
    for source, words in texts.items():
        score = 0.0
        for word in query:
            n = sum(word in other for other in texts.values())
            idf = np.log(1 + (len(texts) - n + 0.5) / (n + 0.5))
            count = words.count(word)
            score += idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * len(words) / mean))
        expected[source] = score
    found = {index.span(number)[0]: score for number, score in index.bm25(" ".join(query), 99)}
    assert found == pytest.approx({source: score for source, score in expected.items() if score > 0}, rel=1e-5)
