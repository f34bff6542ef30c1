"""Nearest vectors: exact where they are to be, nearly so elsewhere, and never a deleted one."""

import numpy as np
import pytest

from src.extras.retrieval.dense import Dense, write_vectors


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors():
    """As texts have them: about topics, and in fewer directions than they have numbers."""
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(60, 12))
    low = topics[rng.integers(60, size=4000)] + 0.7 * rng.normal(size=(4000, 12))
    return unit(low @ rng.normal(size=(12, 48)) + 0.2 * rng.normal(size=(4000, 48)))


@pytest.fixture(scope="module")
def queries(vectors):
    rng = np.random.default_rng(1)
    return unit(vectors[rng.integers(len(vectors), size=100)] + 0.1 * rng.normal(size=(100, 48)))


def brute_force(query, vectors, k, alive):
    cosines = vectors.astype(np.float64) @ query.astype(np.float64)
    cosines[~alive] = -np.inf
    best = np.argsort(-cosines, kind="stable")[:k]
    return best, cosines[best]


@pytest.mark.parametrize("dead", [0, 1500])
@pytest.mark.parametrize(("kind", "recall"), [("flat", 1.0), ("hnsw", 0.95), ("ivf", 0.95)])
def test_the_nearest_are_those_of_brute_force(tmp_path, vectors, queries, kind, recall, dead):
    write_vectors(vectors, kind, tmp_path / "v")
    dense, alive = Dense(tmp_path / "v"), np.ones(len(vectors), bool)
    alive[np.random.default_rng(2).permutation(len(vectors))[:dead]] = False
    hits = []
    for query in queries:
        places, cosines = dense.search(query, 10, alive)
        expected, exact = brute_force(query, vectors, 10, alive)
        assert alive[places].all()
        assert (np.diff(cosines) <= 0).all()
        if kind == "flat":
            np.testing.assert_array_equal(places, expected)
            np.testing.assert_allclose(cosines, exact, atol=1e-6)
        hits.append(len(np.intersect1d(places, expected)) / 10)
    assert np.mean(hits) >= recall


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_vectors_come_back_as_they_were_written(tmp_path, vectors, kind):
    write_vectors(vectors[:500], kind, tmp_path / "v")
    np.testing.assert_array_equal(Dense(tmp_path / "v").vectors(), vectors[:500])


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
@pytest.mark.parametrize("n", [1, 3, 60])
def test_more_than_there_are_gives_all(tmp_path, vectors, kind, n):
    write_vectors(vectors[:n], kind, tmp_path / "v")
    alive = np.ones(n, bool)
    alive[0] = n == 1
    places, _ = Dense(tmp_path / "v").search(vectors[0], 100, alive)
    assert sorted(places) == np.flatnonzero(alive).tolist()
