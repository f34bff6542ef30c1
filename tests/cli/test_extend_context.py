"""extend-context: what it makes reads short texts as before, and long ones at all."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from src.checkpoint import load_trained
from src.encoder import load_encoder
from src.models import GPT, Longformer
from tests.random_networks import checkpoint_of

LIGHTNING = {"pytorch-lightning_version": "2.6.6", "epoch": 0}


@pytest.fixture
def extend(run, tmp_path):
    """Write a checkpoint of a network, extend it; gives the network before, and the command's end."""

    def command(name, *options, **changes):
        model, checkpoint = checkpoint_of(name, **changes)
        torch.save({**checkpoint, **LIGHTNING}, tmp_path / "old.ckpt")
        more = ("--checkpoint", tmp_path / "old.ckpt", "--output", tmp_path / "new.ckpt", *options)
        return model, run("extend-context", *more)

    return command


def ids(length):
    return torch.randint(5, 80, (2, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "changes", [{"positions": "learned"}, {"positions": "rotary"}, {"positions": "rotary", "rope_local_base": 100.0}]
)
def test_a_bert_becomes_a_longformer_that_reads_short_texts_as_it_did(extend, tmp_path, changes):
    """Its window is then the whole text, and its global projections those of the window."""
    bert, (status, out, err) = extend("bert", "--max-seq-len", "100", **changes)
    assert (status, err) == (0, "")
    assert "a longformer of 100 positions" in out
    model, _, _ = load_trained(tmp_path / "new.ckpt", Longformer)
    assert (model.config.max_seq_len, model.config.window) == (100, 12)
    short = ids(12)
    with torch.no_grad():
        found, expected = (m(short).masked_words for m in (model, bert))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert model(ids(100)).masked_words.isfinite().all()
    if changes["positions"] == "learned":
        old, new = (m.encoder.position_embedding.weight for m in (bert, model))
        assert torch.equal(new, torch.cat([old] * 5)[:100])


def test_a_sentence_encoder_stays_one(run, tmp_path):
    """But for the longest text, which is what it is extended for."""
    settings = {
        "mode": "cls",
        "normalize": True,
        "max_length": 20,
        "prompts": {"query": "the "},
        "default_prompt": None,
    }
    _, checkpoint = checkpoint_of("bert")
    torch.save({**checkpoint, **LIGHTNING, "sentence_encoder": settings}, tmp_path / "old.ckpt")
    paths = ("--checkpoint", tmp_path / "old.ckpt", "--output", tmp_path / "new.ckpt")
    assert run("extend-context", *paths, "--max-seq-len", 60)[0] == 0
    old, new = (load_encoder(tmp_path / name) for name in ("old.ckpt", "new.ckpt"))
    assert new.pooling == replace(old.pooling, max_length=None)
    short = ["the cat sat on"]
    np.testing.assert_allclose(new.vectors(short, "query"), old.vectors(short, "query"), atol=1e-5)
    assert (old.max_tokens, new.max_tokens) == (18, 58)


def test_a_longformer_becomes_longer(extend, tmp_path):
    before, (status, _, err) = extend("longformer", "--max-seq-len", "60", "--window", "7")
    assert (status, err) == (0, "")
    model, _, _ = load_trained(tmp_path / "new.ckpt", Longformer)
    assert asdict(model.config) == {**asdict(before.config), "max_seq_len": 60, "window": 7}


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary", "alibi"])
def test_a_gpt_becomes_longer(extend, tmp_path, positions):
    gpt, (status, out, err) = extend("gpt", "--max-seq-len", "60", positions=positions)
    assert (status, err) == (0, "")
    assert ("copies of the old ones" in out) == (positions == "learned")
    model, _, _ = load_trained(tmp_path / "new.ckpt", GPT)
    with torch.no_grad():
        torch.testing.assert_close(model(ids(24)), gpt(ids(24)))
        assert model(ids(60)).isfinite().all()


@pytest.mark.parametrize(
    ("name", "max_seq_len", "changes", "message"),
    [
        ("bert", 24, {}, "--max-seq-len 24 is not more than the 24 positions that there are"),
        ("transformer", 99, {}, "holds a transformer: only gpt, bert, longformer"),
        ("gpt", 0, {}, "no whole number of at least 1"),
        ("bert", 99, {"attention_softcap": 5.0}, "attention_softcap is 5.0"),
        ("bert", 99, {"positions": "alibi"}, "positions is 'alibi'"),
        ("bert", 99, {"window": 0}, "the BERT has window 0"),
        ("bert", 99, {"window": 3, "window_pattern": "LG"}, "the BERT has window 3"),
        ("bert", 99, {"value_residual": True}, "the BERT has value_residual True"),
    ],
)
def test_what_cannot_be_extended_is_refused(extend, tmp_path, name, max_seq_len, changes, message):
    _, (status, _, err) = extend(name, "--max-seq-len", max_seq_len, **changes)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new.ckpt").exists()
