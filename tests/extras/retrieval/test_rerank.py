"""The reranker at its edges."""

import pytest

from src.encoder import load_encoder
from src.errors import InputError
from src.extras.retrieval.rerank import load_reranker
from tests.extras.retrieval.conftest import write_checkpoint

QUERY = "the old senator saw a glacier"


def test_no_passages_have_no_scores(tmp_path):
    assert load_reranker(write_checkpoint(tmp_path / "reranker.ckpt", "bert_classifier")).scores(QUERY, []) == []


def test_other_networks_are_refused(tmp_path):
    three = write_checkpoint(tmp_path / "three.ckpt", "bert_classifier", n_labels=3)
    encoder = write_checkpoint(tmp_path / "encoder.ckpt")
    with pytest.raises(InputError, match="has 3 labels: a reranker has one"):
        load_reranker(three)
    with pytest.raises(InputError, match="holds a bert: this needs a bert_classifier"):
        load_reranker(encoder)
    with pytest.raises(InputError, match="holds a bert_classifier: this needs one of bert"):
        load_encoder(three)
