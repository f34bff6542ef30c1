"""A small encoder and reranker with random weights, and documents that differ in their words."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

from src.checkpoint import read_checkpoint, save_checkpoint
from src.encoder import Encoder, load_encoder
from src.extras.retrieval.bi_encoder import BiEncoder
from src.extras.retrieval.index_files import Settings
from src.extras.retrieval.passages import Document
from src.models import BERT, BERTClassifier, BERTClassifierConfig, BERTConfig
from src.tokenization import bert_tokens, train_wordpiece
from tests.distributed import jobs

NOUNS = "river mountain teacher orchestra vaccine senator battle novel enzyme bridge festival glacier".split()  # noqa: SIM905
TEXT = [f"The {noun} was old, and {other} saw it." for noun in NOUNS for other in NOUNS]
SHAPE = {"max_seq_len": 48, "d_model": 32, "n_heads": 2, "n_layers": 1, "dropout": 0.0, "attention_dropout": 0.0}


def documents(n: int, start: int = 0) -> list[Document]:
    """Documents of twenty sentences each."""
    found = []
    for i in range(start, start + n):
        words = [NOUNS[(i * j + j * j + i // 5) % len(NOUNS)] for j in range(20)]
        found.append(
            Document(f"doc{i}", " ".join(f"The {word} number{i} was near the {words[i % 7]}." for word in words))
        )
    return found


def write_checkpoint(path: Path, kind: str = "bert", seed: int = 0, **shape: int) -> Path:
    """A checkpoint of a network with random weights."""
    tokenizer = train_wordpiece(TEXT, 120)
    torch.manual_seed(seed)
    size = {"vocab_size": tokenizer.get_vocab_size(), **SHAPE, "init_std": 0.2, **shape}
    if kind == "bert":
        config = BERTConfig(**size)
        model = BERT(config)
    else:
        config = BERTClassifierConfig(**{"n_labels": 1, **size})
        model = BERTClassifier(config)
    weights = {f"model.{name}": weight for name, weight in model.state_dict().items()}
    content = {"architecture": kind, "model_config": asdict(config), "tokenizer": tokenizer.to_str()}
    content |= {"special_tokens": bert_tokens(tokenizer), "state_dict": weights, "config": "experiment: test"}
    torch.save(content, path)
    return path


def settings(encoder: Encoder | None = None, **changes) -> Settings:
    """Of an index of passages of 20 tokens."""
    found = {
        "encoder": "encoder.ckpt" if encoder else None,
        "checksum": encoder.checksum() if encoder else None,
        "dimension": encoder.dimension if encoder else None,
        "passage_len": 20,
        "overlap": 5,
        "kind": "flat",
        "stemmer": "english",
    }
    return Settings(**{**found, **changes})


def write_config(kind: str, root: Path) -> Path:
    """A small run of the retriever or the reranker."""
    path = jobs.write_config("bert", root)
    settings = yaml.safe_load(path.read_text())
    settings["experiment"] = kind
    settings["model"]["class_path"] = f"{kind.capitalize()}Module"
    settings["data"]["class_path"] = f"{kind.capitalize()}DataModule"
    settings["data"]["init_args"] |= {"query_len": 16, "passage_len": 20, "negatives": 2}
    settings["trainer"]["callbacks"] = []
    path = root / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("encoder") / "encoder.ckpt")


@pytest.fixture(scope="session")
def encoder(checkpoint) -> Encoder:
    return load_encoder(checkpoint)


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
