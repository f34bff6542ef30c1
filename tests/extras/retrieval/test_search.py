"""Search over all stages: fusion, candidates and reranking, and what cannot be searched for or with."""

import numpy as np
import pytest

from src.encoder import load_encoder
from src.errors import InputError
from src.extras.retrieval.changing import add
from src.extras.retrieval.index import Index
from src.extras.retrieval.searcher import Searcher, blend, fuse, load_reranker
from tests.extras.retrieval.conftest import documents, settings, write_checkpoint

QUERY = "the river number3 and a festival"


@pytest.fixture(scope="module")
def searcher(tmp_path_factory, encoder):
    folder = tmp_path_factory.mktemp("search")
    add(folder / "index", documents(10), settings(encoder), encoder)
    reranker = load_reranker(write_checkpoint(folder / "reranker.ckpt", "bert_classifier", seed=3))
    return Searcher(Index(folder / "index"), encoder, reranker)


def test_fusion_is_by_reciprocal_ranks():
    """1 / (60 + rank), summed over the lists that have a passage (Cormack et al. 2009, section 2)."""
    fused = fuse([[(7, 9.0), (8, 5.0), (9, 1.0)], [(9, 0.9), (5, 0.8)]])
    expected = {9: 1 / 63 + 1 / 61, 7: 1 / 61, 8: 1 / 62, 5: 1 / 62}
    assert dict(fused) == pytest.approx(expected)
    assert [number for number, _ in fused] == [9, 7, 5, 8]
    assert fuse([[], []]) == []


def test_hybrid_is_the_fusion_of_both(searcher):
    words, vectors = (searcher.stages(QUERY, mode, 100)[mode] for mode in ("bm25", "dense"))
    fused = fuse([words, vectors])
    plain = Searcher(searcher.index, searcher.encoder)
    hits = plain.search(QUERY, "hybrid", 9)
    assert [(hit.number, hit.scores["hybrid"]) for hit in hits] == fused[:9]
    for hit in hits:
        assert hit.scores.get("bm25") == dict(words).get(hit.number)
        assert hit.scores.get("dense") == dict(vectors).get(hit.number)
        assert hit.passage == searcher.index.passage(hit.number)


def test_the_reranker_orders_the_candidates_and_no_others(searcher):
    plain = Searcher(searcher.index, searcher.encoder).search(QUERY, "dense", 12)
    hits = searcher.search(QUERY, "dense", 12, candidates=6)
    scores = searcher.reranker.scores(QUERY, [hit.passage.text for hit in plain[:6]])
    order = sorted(range(6), key=lambda i: -scores[i])
    assert order != list(range(6))
    assert [hit.number for hit in hits] == [plain[i].number for i in order] + [hit.number for hit in plain[6:]]
    assert [hit.scores["rerank"] for hit in hits[:6]] == pytest.approx(sorted(scores, reverse=True))
    assert not any("rerank" in hit.scores for hit in hits[6:])
    # candidates beyond those to be shown may come up
    assert searcher.search(QUERY, "dense", 1, candidates=6)[0].number == hits[0].number


def test_the_weight_of_the_reranker(searcher):
    """Scores of mean 0 and deviation 1, added by their weights."""
    assert blend([1.0, 2.0, 6.0], [5.0, 4.0, 0.0], 1) == [5.0, 4.0, 0.0]
    first, second = (np.array(scores) for scores in ([1.0, 2.0, 6.0], [3.0, 5.0, 0.0]))
    expected = 0.7 * (first - first.mean()) / first.std() + 0.3 * (second - second.mean()) / second.std()
    np.testing.assert_allclose(blend(first.tolist(), second.tolist(), 0.3), expected)
    assert blend([2.0, 2.0], [1.0, 3.0], 0.5) == [-0.5, 0.5]
    plain = Searcher(searcher.index, searcher.encoder)
    for weight, mode in ((1e-9, "dense"), (1e-9, "hybrid")):  # as good as none: the order is that of the search
        light = Searcher(searcher.index, searcher.encoder, searcher.reranker, weight)
        numbers = [[hit.number for hit in one.search(QUERY, mode, 9, candidates=9)] for one in (light, plain)]
        assert numbers[0] == numbers[1]


def test_more_than_there_are_gives_all(searcher):
    n = len(searcher.index)
    for mode in ("dense", "hybrid"):
        hits = searcher.search(QUERY, mode, 10 * n, candidates=10 * n)
        assert sorted(hit.number for hit in hits) == searcher.index.numbers.tolist()


@pytest.mark.parametrize("query", ["", "  \n", "?! ...", "—"])
def test_a_query_without_words_is_refused(searcher, query):
    for mode in ("bm25", "dense", "hybrid"):
        with pytest.raises(InputError, match="has no words"):
            searcher.search(query, mode, 3)


def test_words_that_are_nowhere_find_nothing_by_words(searcher):
    plain = Searcher(searcher.index)
    assert plain.search("quark", "bm25", 3) == []
    assert plain.search("the of and", "bm25", 3) == []  # stop words
    with pytest.raises(InputError, match="needs the encoder"):
        plain.search(QUERY, "hybrid", 3)


def test_the_encoder_of_a_retriever_is_that_of_its_bert(retriever, tmp_path):
    assert load_encoder(retriever).checksum() == load_encoder(tmp_path / "bert.ckpt").checksum()


def test_no_passages_have_no_scores(tmp_path):
    assert load_reranker(write_checkpoint(tmp_path / "reranker.ckpt", "bert_classifier")).scores(QUERY, []) == []


def test_other_networks_are_refused(tmp_path):
    three = write_checkpoint(tmp_path / "three.ckpt", "bert_classifier", n_labels=3)
    encoder = write_checkpoint(tmp_path / "bert.ckpt")
    with pytest.raises(InputError, match="has 3 labels: a reranker has one"):
        load_reranker(three)
    with pytest.raises(InputError, match="holds a bert: this needs a bert_classifier"):
        load_reranker(encoder)
    with pytest.raises(InputError, match="holds a bert_classifier: this needs one of bert"):
        load_encoder(three)
