"""Rankings and documents are read as all tables are, and their caches depend on all that shaped them."""

import pytest

from src.data.malformed import Reading
from src.extras.retrieval.data import RerankerDataModule, RetrieverDataModule
from src.extras.retrieval.data.examples import RankingSource
from src.extras.retrieval.documents import read_documents
from tests.conftest import prepared
from tests.data.test_sources import (  # noqa: F401
    ROWS,
    test_the_cache_of_every_data_module_depends_on_all_that_shapes_it,
    tokenizer,
    write,
)
from tests.data.test_tables import (  # noqa: F401
    test_every_reader_leaves_out_and_counts_the_same_rows,
    test_every_reader_reads_the_same_rows,
    test_every_reader_refuses_a_larger_share_unless_it_is_allowed,
    test_json_is_read_whole,
)

RANKING = {"query_column": "label", "positive_column": "text"}
MODULES = {
    "cloze": (RetrieverDataModule, {}),
    "labelled queries": (RetrieverDataModule, RANKING),
    "reranking": (RerankerDataModule, {**RANKING, "negatives": 1}),
}


def read_ranking(path, cache, reading=Reading()):  # noqa: B008
    source = RankingSource(str(path), None, ("label", "text"), 0.1, 0.1, reading)
    return sorted(own for rows in source.splits(cache).values() for _, own, _ in source.labelled(rows))


def read_texts(path, cache, reading=Reading()):  # noqa: B008
    return sorted(document.text for document in read_documents(str(path), None, "text", cache, reading))


# in the place of the core's, for the tests that are imported


@pytest.fixture(params=[read_ranking, read_texts])
def read(request):
    return request.param


read_rows = read


@pytest.fixture(params=MODULES)
def kind(request):
    return MODULES[request.param]


def test_other_labelled_queries_are_other_data(tmp_path, tokenizer):  # noqa: F811
    def fingerprint(name: str, rows) -> str:
        path = write(tmp_path / name / "rows.jsonl", rows)
        options = {"tokenizer": str(tokenizer), "cache_dir": str(tmp_path / name), "negatives": 1}
        return prepared(RerankerDataModule(source=str(path), **RANKING, **options)).fingerprint()

    other = [{**row, "text": row["text"].replace("says", "more")} for row in ROWS]
    assert fingerprint("one", ROWS) == fingerprint("same", ROWS)
    assert fingerprint("one", ROWS) != fingerprint("other", other)


def test_linked_folders_are_followed_and_circles_end(tmp_path):
    folder = tmp_path / "corpus"
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    (tmp_path / "elsewhere/deep/one.txt").write_text("A text.")
    (tmp_path / "elsewhere/deep/again").symlink_to(tmp_path / "elsewhere")
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "round").symlink_to(folder)
    assert [row.source for row in read_documents(str(folder), None, "text", tmp_path)] == ["linked/deep/one.txt"]
