"""BART: any of its options in and out, the text that `transformers` writes, and by name what no network here has."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BartModel, PreTrainedTokenizerFast

from src.decoding import Translator
from src.errors import InputError
from src.extras.huggingface.adapter import ACTIVATIONS
from src.extras.huggingface.exporting import export
from src.extras.huggingface.importing import import_folder
from tests.extras.huggingface.networks import bart, inputs, save
from tests.extras.huggingface.published_tokenizers import ROBERTA_TOKENS, roberta_tokenizer
from tests.extras.huggingface.test_weights import ours_of, outputs
from tests.random_networks import BPE, TEXT
from tests.reliability.runs import config

WORDS = TEXT[0].split()
LINES = [" ".join(WORDS[i : i + 1 + 2 * i]) for i in range(4)]
ACTS = [name for names in ACTIVATIONS.values() for name in names]
TOKENS = {"pad": "<pad>", "bos": "<s>", "eos": "</s>"}


@st.composite
def options(draw):
    n_heads = draw(st.sampled_from([1, 2, 4]))
    return {
        "d_model": 8 * n_heads,
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), n_heads),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), draw(st.sampled_from([4, 24, 32 * n_heads]))),
        "encoder_layers": draw(st.integers(1, 3)),
        "decoder_layers": draw(st.integers(1, 3)),
        "max_position_embeddings": draw(st.integers(21, 40)),
        "activation_function": draw(st.sampled_from(ACTS)),
        "scale_embedding": draw(st.booleans()),
        "vocab_size": BPE.get_vocab_size() + draw(st.integers(0, 3)),
        "dropout": draw(st.sampled_from([0.0, 0.3])),
        "attention_dropout": draw(st.sampled_from([0.0, 0.3])),
    }


@settings(max_examples=6, deadline=None)
@given(options())
def test_any_options_give_equal_logits_both_ways_and_the_same_tensors_again(changes):
    theirs = bart(BPE, **changes)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        checkpoint = import_folder(save(theirs, BPE, root / "in"), "a model").content
        ours, batch = ours_of(checkpoint), inputs(theirs)
        (found,), expected = outputs(ours, batch), outputs(theirs, batch)[0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        export(checkpoint, root / "out")
        again = import_folder(root / "out", "a model").content
        assert all(torch.equal(again["state_dict"][name], t) for name, t in checkpoint["state_dict"].items())
        loaded = AutoModelForSeq2SeqLM.from_pretrained(root / "out").eval()
        torch.testing.assert_close(found, outputs(loaded, batch)[0], atol=1e-5, rtol=1e-5)


def published(folder: Path, forced: bool = True, seed: int = 0):
    """A BART with a tokenizer of its kind, whose sentences end now and then."""
    tokenizer = roberta_tokenizer()
    ids = {f"{name}_token_id": tokenizer.token_to_id(token) for name, token in TOKENS.items()}
    more = {"decoder_start_token_id": ids["eos_token_id"], "max_position_embeddings": 40, "init_std": 0.3}
    theirs = bart(BPE, vocab_size=tokenizer.get_vocab_size(), **ids, **more)
    torch.manual_seed(seed)
    with torch.no_grad():
        stream = theirs.model.decoder.layers[-1].final_layer_norm.bias.fill_(1)
        theirs.model.shared.weight[ids["eos_token_id"]] += 4 * stream / stream.sum()
    theirs.generation_config.forced_bos_token_id = ids["bos_token_id"] if forced else None
    theirs.save_pretrained(folder)
    named = {f"{name}_token": token for name, token in ROBERTA_TOKENS.items()} | {
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    return theirs


def translations(checkpoint, beam):
    """The tokens of each line's translation, and its text."""
    model, (source, target) = ours_of(checkpoint), (roberta_tokenizer(), roberta_tokenizer())
    translator = Translator(
        model, target, checkpoint["special_tokens"], source, beam=beam, length_penalty=0.0, max_length=16
    )
    found = [hypotheses[0].ids for hypotheses in translator.translate(LINES)]
    return found, target.decode_batch(found)


def generated(theirs, folder, beam):
    """The same of `transformers`."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(LINES, padding=True, return_tensors="pt")
    search = {"num_beams": beam, "do_sample": False, "length_penalty": 0.0, "max_new_tokens": 16}
    search |= {"early_stopping": "never"} if beam > 1 else {}
    rows = theirs.generate(**{name: batch[name] for name in ("input_ids", "attention_mask")}, **search)
    end = theirs.config.eos_token_id
    ids = [row[1:] for row in rows.tolist()]
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return [row[: row.index(end)] if end in row else row for row in ids], texts


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("forced", [True, False])
def test_the_text_is_that_of_transformers_in_and_out(tmp_path, beam, forced):
    theirs = published(tmp_path / "in", forced)
    checkpoint = import_folder(tmp_path / "in", "a model").content
    found = translations(checkpoint, beam)
    assert found == generated(theirs, tmp_path / "in", beam)
    assert any(found[1])
    if forced:
        assert {row[0] for row in found[0]} == {theirs.config.bos_token_id}
    export(checkpoint, tmp_path / "out")
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    assert generated(loaded, tmp_path / "out", beam) == found
    again = import_folder(tmp_path / "out", "a model").content
    for name in ("tokenizer", "source_tokenizer", "special_tokens", "model_config"):
        assert again[name] == checkpoint[name]


def test_a_network_without_an_output_layer_has_its_embeddings_for_one(tmp_path):
    """As BART base is published."""
    theirs = published(tmp_path / "in")
    expected = import_folder(tmp_path / "in", "a model").content["state_dict"]
    BartModel.from_pretrained(tmp_path / "in").save_pretrained(tmp_path / "in")
    assert json.loads((tmp_path / "in/config.json").read_text())["architectures"] == ["BartModel"]
    found = import_folder(tmp_path / "in", "a model")
    assert not found.notes
    assert all(torch.equal(found.content["state_dict"][name], t) for name, t in expected.items())
    assert torch.equal(found.content["state_dict"]["model.head.weight"], theirs.lm_head.weight)


def test_training_goes_on_from_an_import(run, tmp_path):
    """With what begins each text on both sides, and the learning rate and warm-up that the import names."""
    published(tmp_path / "in")
    assert run("import", "--from", tmp_path / "in", "--output", tmp_path / "bart.ckpt")[0] == 0
    base = config("transformer", tmp_path, trainer__max_steps=2, data__init_args__eval_max_tokens=48)
    layers = ("--config", base, "--config", tmp_path / "bart.yaml", "--experiment", "from")
    status, _, err = run("fit", *layers)
    assert status == 0, err
    (last,) = (tmp_path / "logs/from").rglob("last.ckpt")
    trained = torch.load(last, weights_only=True)
    assert trained["special_tokens"]["bos_token"] == trained["special_tokens"]["forced_bos_token"] == "<s>"
    status, _, err = run("export", "--checkpoint", last, "--output", tmp_path / "out")
    assert (status, err) == (0, "")
    rows = AutoTokenizer.from_pretrained(tmp_path / "out")(LINES[:1]).input_ids
    assert rows == AutoTokenizer.from_pretrained(tmp_path / "in")(LINES[:1]).input_ids


REFUSED = {
    "tie_word_embeddings": [False],
    "normalize_before": [True],
    "normalize_embedding": [False],
    "add_final_layer_norm": [True],
    "add_bias_logits": [True],
    "static_position_embeddings": [True],
    "encoder_attention_heads": [2, 8],
    "decoder_attention_heads": [2],
    "encoder_ffn_dim": [47],
    "decoder_ffn_dim": [47],
    "activation_function": ["mish", "quick_gelu", "laplace", "relu6", "hardswish"],
    "d_model": [30, 64],
    "encoder_layers": [0, 3],
    "decoder_layers": [2],
    "max_position_embeddings": [7],
    "vocab_size": [299],
    "dropout": [1.0],
    "attention_dropout": [-0.1],
    "scale_embedding": ["yes"],
    "eos_token_id": [None, 999],
    "decoder_start_token_id": [None],
    "forced_bos_token_id": [999],
    "model_type": ["t5", "mbart"],
    "architectures": [[f"BartFor{name}"] for name in ("SequenceClassification", "QuestionAnswering", "CausalLM")],
}
CALLED = {  # what a message says, where it is not by these keys
    "d_model": "x 64",
    "encoder_layers": "encoder",
    "decoder_layers": "decoder.layers.2",
    "max_position_embeddings": "embed_positions",
    "vocab_size": "shared.weight",
}
CHANGES = [(key, value) for key, values in REFUSED.items() for value in values]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(bart(BPE), BPE, tmp_path_factory.mktemp("bart") / "in")


@pytest.mark.parametrize(("key", "value"), CHANGES, ids=str)
def test_what_no_network_here_has_is_refused_by_name(folder, key, value):
    assert len(CHANGES) >= 20
    path, before = folder / "config.json", (folder / "config.json").read_text()
    path.write_text(json.dumps({**json.loads(before), key: value}))
    try:
        with pytest.raises(InputError) as refused:
            import_folder(folder, "a model")
    finally:
        path.write_text(before)
    said = str(refused.value)
    named = value[0] if key == "architectures" else key
    assert named in said or (key in CALLED and CALLED[key] in said), said
    assert "\n" not in said


def test_a_bias_of_the_output_layer_is_refused(tmp_path):
    theirs = bart(BPE)
    theirs.final_logits_bias += 1
    with pytest.raises(InputError, match="final_logits_bias is not zero"):
        import_folder(save(theirs, BPE, tmp_path), "a model")
