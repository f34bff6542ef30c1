"""The reranker scores as HuggingFace's network with the same weights does, on the same pairs."""

import pytest
import torch
from transformers import AutoTokenizer, BertForSequenceClassification

from src.checkpoint import read_checkpoint
from src.encoder import load_encoder
from src.errors import InputError
from src.extras.huggingface.exporting import export
from src.extras.huggingface.importing import import_folder
from src.extras.retrieval.rerank import load_reranker
from src.tokenization import train_wordpiece
from tests.extras.huggingface.networks import bert
from tests.extras.retrieval.conftest import NOUNS, TEXT, write_checkpoint

QUERY = "the old senator saw a glacier"
PASSAGES = [f"The {noun} was old. " * (i + 1) for i, noun in enumerate(NOUNS[:6])] + [""]


def theirs(folder, query, passages):
    """HuggingFace's own tokenizer and network, read from a folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    batch = tokenizer([query] * len(passages), passages, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return model(**batch).logits[:, 0]


def test_scores_after_the_export_are_those_of_huggingface(tmp_path):
    path = write_checkpoint(tmp_path / "reranker.ckpt", "bert_classifier", norm="post")
    export(read_checkpoint(path), tmp_path / "hf")
    expected = theirs(tmp_path / "hf", QUERY, PASSAGES)
    assert expected.std() > 0.05
    found = torch.tensor(load_reranker(path).scores(QUERY, PASSAGES))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_scores_after_the_import_are_those_of_huggingface(tmp_path):
    tokenizer = train_wordpiece(TEXT, 120)
    model = bert(tokenizer, "classifier", num_labels=1, max_position_embeddings=48)
    export_first = write_checkpoint(tmp_path / "first.ckpt", "bert_classifier", norm="post", d_model=32, n_heads=4)
    export(read_checkpoint(export_first), tmp_path / "hf")  # for a tokenizer that writes pairs
    model.save_pretrained(tmp_path / "hf")
    content, _, _ = import_folder(tmp_path / "hf", "a reranker")
    torch.save(content, tmp_path / "imported.ckpt")
    expected = theirs(tmp_path / "hf", QUERY, PASSAGES)
    assert expected.std() > 1e-3
    found = torch.tensor(load_reranker(tmp_path / "imported.ckpt").scores(QUERY, PASSAGES))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    before = BertForSequenceClassification.from_pretrained(tmp_path / "hf").state_dict()
    export(content, tmp_path / "again")
    after = BertForSequenceClassification.from_pretrained(tmp_path / "again").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_pairs_are_cut_as_huggingface_cuts_them(tmp_path):
    """The longer text first; here 48 positions."""
    path = write_checkpoint(tmp_path / "reranker.ckpt", "bert_classifier", norm="post")
    export(read_checkpoint(path), tmp_path / "hf")
    long = [" ".join(NOUNS * 6), " ".join(NOUNS)]
    found = torch.tensor(load_reranker(path).scores(QUERY, long))
    torch.testing.assert_close(found, theirs(tmp_path / "hf", QUERY, long), atol=1e-5, rtol=0)


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
