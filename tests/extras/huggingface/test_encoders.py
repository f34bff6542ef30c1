"""RoBERTa, DistilBERT, ModernBERT, Jina: any of their options in and out, tokenizers, pairs, training from them."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from src.extras.huggingface.adapter import ACTIVATIONS
from src.extras.huggingface.exporting import export
from src.extras.huggingface.importing import import_folder
from src.extras.huggingface.tokenizer_files import with_bert_template
from src.tokenization import bert_ids, bert_row, bert_tokens, pad_pairs, train_wordpiece
from tests.extras.huggingface.networks import DISTILBERTS, ENCODERS, JINAS, MODERNBERTS, ROBERTAS, inputs, save
from tests.extras.huggingface.published_tokenizers import (
    MODERNBERT_TOKENS,
    ROBERTA_TOKENS,
    modernbert_tokenizer,
    roberta_tokenizer,
)
from tests.extras.huggingface.test_weights import encoded, ours_of, outputs
from tests.random_networks import TEXT, WORDPIECE
from tests.reliability.runs import config

KINDS = [
    *(f"roberta: {kind}" for kind in ROBERTAS),
    *(f"distilbert: {kind}" for kind in DISTILBERTS),
    *(f"modernbert: {kind}" for kind in MODERNBERTS),
    *(f"jina_embeddings_v3: {kind}" for kind in JINAS),
]
ACTS = [name for names in ACTIVATIONS.values() for name in names]
DROPOUT = st.sampled_from([0.0, 0.1, 0.3])
PROPERTY = settings(max_examples=4, deadline=None)


# ---- whatever their options are


@st.composite
def shapes(draw, width, layers, heads, d_ff, positions="max_position_embeddings"):
    """Sizes by the keys of a format."""
    n_heads = draw(st.sampled_from([1, 2, 4]))
    return {
        heads: n_heads,
        width: 8 * n_heads,
        layers: draw(st.integers(1, 3)),
        d_ff: draw(st.sampled_from([4, 24, 32 * n_heads])),
        positions: draw(st.integers(21, 40)),
        "initializer_range": draw(st.sampled_from([0.1, 0.3])),
        "vocab_size": 80 + draw(st.integers(0, 3)),
    }


BERTS = shapes("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


@st.composite
def of_roberta(draw, kind):
    pad = draw(st.integers(0, 4))
    found = draw(BERTS) | {
        "pad_token_id": pad,
        "type_vocab_size": draw(st.integers(1, 3)),
        "layer_norm_eps": draw(st.sampled_from([1e-12, 1e-5, 1e-2])),
        "hidden_dropout_prob": draw(DROPOUT),
        "attention_probs_dropout_prob": draw(DROPOUT),
    }
    found["max_position_embeddings"] += pad + 1
    if kind == "classifier":
        found |= {"hidden_act": draw(st.sampled_from(ACTS)), "num_labels": draw(st.integers(1, 4))}
    return found


@st.composite
def of_distilbert(draw, kind):
    return draw(shapes("dim", "n_layers", "n_heads", "hidden_dim")) | {
        "activation": draw(st.sampled_from(ACTS)),
        "dropout": draw(DROPOUT),
        "attention_dropout": draw(DROPOUT),
        "pad_token_id": draw(st.integers(0, 4)),
    }


@st.composite
def of_modernbert(draw, kind):
    found, bias = draw(BERTS), draw(st.booleans())
    full, local = (draw(st.sampled_from([1e4, 16e4, 500.0])) for _ in range(2))
    types = st.sampled_from(["full_attention", "sliding_attention"])
    activations = draw(st.sampled_from(list(ACTIVATIONS.values())))
    return found | {
        "hidden_activation": draw(st.sampled_from(activations)),
        "classifier_activation": draw(st.sampled_from(activations)),
        **dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), bias),
        "norm_eps": draw(st.sampled_from([1e-12, 1e-5, 1e-2])),
        "local_attention": draw(st.integers(0, 13)),
        "layer_types": [draw(types) for _ in range(found["num_hidden_layers"])],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": full},
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        },
        "embedding_dropout": draw(DROPOUT),
        "attention_dropout": draw(DROPOUT),
    }


@st.composite
def of_jina(draw, kind):
    found = draw(of_roberta(kind)) | {"rope_theta": draw(st.sampled_from([1e4, 2e4, 500.0]))}
    del found["pad_token_id"]
    return found


DRAWN = {"roberta": of_roberta, "distilbert": of_distilbert, "modernbert": of_modernbert, "jina_embeddings_v3": of_jina}


def near(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert found[0].shape == expected[0].shape
    for value, wanted in zip(found, expected, strict=False):  # the networks here have more heads
        torch.testing.assert_close(value, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", KINDS)
@PROPERTY
@given(data=st.data())
def test_any_options_give_equal_logits_both_ways_and_the_same_tensors_again(case, data):
    model_type, _, kind = case.partition(": ")
    theirs = ENCODERS[model_type](WORDPIECE, kind, **data.draw(DRAWN[model_type](kind)))
    pad = theirs.config.pad_token_id
    with TemporaryDirectory() as folder:
        root = Path(folder)
        checkpoint = import_folder(save(theirs, WORDPIECE, root / "in"), "a model").content
        ours, batch = ours_of(checkpoint), inputs(theirs)
        batch["input_ids"] = batch["input_ids"].masked_fill(batch["input_ids"] == pad, pad + 1)
        expected = outputs(theirs, batch)
        found = (encoded if kind == "encoder" else outputs)(ours, batch)
        near(found, expected)
        if kind == "masked words":
            assert torch.equal(found[0].argmax(-1), expected[0].argmax(-1))
        exported = export(checkpoint, root / "out")
        again = import_folder(root / "out", "a model").content
        assert all(torch.equal(again["state_dict"][name], t) for name, t in checkpoint["state_dict"].items())
        (name,) = exported.config["architectures"]
        loaded, report = getattr(transformers, name).from_pretrained(root / "out", output_loading_info=True)
        assert not any(report.values())
        # positions of the exported network are counted by the padding token of the tokenizer
        batch["input_ids"] = batch["input_ids"].masked_fill(batch["input_ids"] == loaded.config.pad_token_id, 5)
        near((encoded if kind == "encoder" else outputs)(ours, batch), outputs(loaded.eval(), batch))


@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_older_keys_of_modernbert_say_the_same(tmp_path, every):
    theirs = ENCODERS["modernbert"](
        WORDPIECE,
        layer_types=["sliding_attention" if i % every else "full_attention" for i in range(4)],
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 999.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 77.0},
        },
    )
    newer = import_folder(save(theirs, WORDPIECE, tmp_path), "a model").content
    content = json.loads((tmp_path / "config.json").read_text())
    for key in ("layer_types", "rope_parameters"):
        del content[key]
    older = {"global_attn_every_n_layers": every, "global_rope_theta": 999.0, "local_rope_theta": 77.0}
    (tmp_path / "config.json").write_text(json.dumps(content | older))
    assert import_folder(tmp_path, "a model").content["model_config"] == newer["model_config"]
    written = export(newer, tmp_path / "out").config
    assert {key: written[key] for key in older} == older


# ---- tokenizers


def published(model_type: str, kind: str, folder: Path, **changes) -> PreTrainedModel:
    """A network with a tokenizer of its kind."""
    tokenizer, named = train_wordpiece([TEXT[0] + "."], 80), MODERNBERT_TOKENS
    tokenizer = with_bert_template(tokenizer, bert_tokens(tokenizer))
    if model_type == "roberta":
        tokenizer, named = roberta_tokenizer(), ROBERTA_TOKENS
    elif model_type == "modernbert":
        tokenizer = modernbert_tokenizer()
    ids = {name: tokenizer.token_to_id(token) for name, token in named.items()}
    special = {"pad_token_id": ids["pad"]}
    if model_type != "distilbert":
        special |= {"bos_token_id": ids["cls"], "eos_token_id": ids["sep"], "sep_token_id": ids["sep"]}
    changes = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 40 + ids["pad"] + 1} | changes
    model = ENCODERS[model_type](WORDPIECE, kind, **special, **changes)
    model.save_pretrained(folder)
    tokens = {f"{name}_token": token for name, token in named.items()}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(folder)
    return model


@pytest.mark.parametrize("model_type", ENCODERS)
def test_the_tokenizer_goes_in_and_out_again(tmp_path, model_type):
    published(model_type, "masked words", tmp_path / "in")
    checkpoint = import_folder(tmp_path / "in", "a model").content
    exported = export(checkpoint, tmp_path / "out").config
    before, after = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("in", "out"))
    words = TEXT[0].split()
    for texts in ((TEXT[0],), (words[0], " ".join(words[1:])), ("Zürich — 中文\t🙂",), ("",)):
        assert before(*texts).input_ids == after(*texts).input_ids
    assert before.decode(before(TEXT[0]).input_ids) == after.decode(before(TEXT[0]).input_ids)
    assert {name: getattr(after, name) for name in checkpoint["special_tokens"]} == checkpoint["special_tokens"]
    assert exported["pad_token_id"] == after.pad_token_id
    again = import_folder(tmp_path / "out", "a model").content
    assert again["tokenizer"] == checkpoint["tokenizer"]
    assert again["special_tokens"] == checkpoint["special_tokens"]
    # what the exported network is given is what it takes
    batch = after([TEXT[0], words[0]], padding=True, truncation=True, return_tensors="pt")
    loaded = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    near(outputs(ours_of(checkpoint), dict(batch)), outputs(loaded, dict(batch)))


@pytest.mark.parametrize("n_labels", [1, 3])
def test_pairs_of_texts_are_read_as_robertas(tmp_path, n_labels):
    """With two separators between them; one more label than a reranker has is a classifier."""
    theirs = published("roberta", "classifier", tmp_path, num_labels=n_labels)
    checkpoint = import_folder(tmp_path, "a model").content
    tokenizer, words = roberta_tokenizer(), TEXT[0].split()
    pairs = [(words[0], " ".join(words[1:3])), (" ".join(words[:4]), words[5])]
    batch = AutoTokenizer.from_pretrained(tmp_path)([a for a, _ in pairs], [b for _, b in pairs], padding=True)
    special = bert_ids(tokenizer)
    rows = [bert_row([tokenizer.encode(t, add_special_tokens=False).ids for t in pair], 40, special) for pair in pairs]
    assert [ids for ids, _ in rows] == [
        ids[: sum(mask)] for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    arrays = {name: torch.from_numpy(a) for name, a in pad_pairs(rows, special["pad_token"], 40).items()}
    with torch.no_grad():
        found = ours_of(checkpoint)(**arrays)
        expected = theirs(**{name: torch.tensor(batch[name]) for name in ("input_ids", "attention_mask")}).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("model_type", ENCODERS)
def test_training_goes_on_from_an_import(run, tmp_path, model_type):
    """On pairs, whose segments are alike to these networks, by the learning rate and warm-up that the import names."""
    published(model_type, "masked words", tmp_path / "in")
    status, _, err = run("import", "--from", tmp_path / "in", "--output", tmp_path / "x.ckpt")
    assert (status, err) == (0, "")
    layers = ("--config", config("bert", tmp_path, trainer__max_steps=1), "--config", tmp_path / "x.yaml")
    status, _, err = run("fit", *layers, "--experiment", "from")
    assert status == 0, err
    (last,) = (tmp_path / "logs/from").rglob("last.ckpt")
    before, after = (torch.load(path, weights_only=True)["state_dict"] for path in (tmp_path / "x.ckpt", last))
    assert not torch.equal(before["model.masked_words.dense.weight"], after["model.masked_words.dense.weight"])
    status, out, err = run("export", "--checkpoint", last, "--output", tmp_path / "out")
    assert (status, err) == (0, "")
    assert "encoder.pooler and next_sentence is left out" in out
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").model_type == model_type
