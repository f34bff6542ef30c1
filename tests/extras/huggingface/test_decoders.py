"""Llama, Mistral and Qwen3 with any of their options: logits, greedy text, tensors, in and out; what is refused."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from src.architectures import architectures
from src.decoding import generate
from src.errors import InputError
from src.extras.huggingface.exporting import export
from src.extras.huggingface.importing import import_folder
from src.models import GPT
from src.tokenization import END_OF_TEXT
from tests.extras.huggingface.networks import DECODERS, decoder, save
from tests.random_networks import BPE, checkpoint_of

END = BPE.token_to_id(END_OF_TEXT)
PROMPTS = [[5, 9, 40], [17], [33, 2, 8, 100, 7]]
SCALED = {"factor": st.sampled_from([1, 1.5, 4.0]), "original_max_position_embeddings": st.sampled_from([8, 16])}
SCALINGS = {
    "default": {},
    "linear": {"factor": SCALED["factor"]},
    "yarn": {**SCALED, "beta_fast": st.sampled_from([None, 32]), "truncate": st.sampled_from([None, True])},
    "llama3": {**SCALED, "low_freq_factor": st.just(1.0), "high_freq_factor": st.just(4.0)},
}
ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh", "relu", "relu2", "tanh", "sigmoid", "leaky_relu", "prelu")


@st.composite
def rotations(draw):
    """The rotation in transformers' keys of today."""
    kind = draw(st.sampled_from(sorted(SCALINGS)))
    found = {"rope_type": kind, "rope_theta": draw(st.sampled_from([100.0, 5000, 10000.0, 5e5]))}
    found |= {name: draw(values) for name, values in SCALINGS[kind].items()}
    return {name: value for name, value in found.items() if value is not None}


@st.composite
def options(draw, kind):
    """The options of a configuration."""
    n_heads = draw(st.sampled_from([2, 4]))
    n_layers = draw(st.integers(1, 4))
    found = {
        "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads,
        "num_key_value_heads": draw(st.sampled_from([1, 2] if kind == "mistral" else [None, 1, 2])),
        "head_dim": draw(st.sampled_from([8, 6] if kind == "qwen3" else [None, 4, 10])),
        "hidden_size": draw(st.sampled_from([24, 32])),
        "intermediate_size": draw(st.sampled_from([40, 96])),
        "max_position_embeddings": draw(st.sampled_from([24, 64])),
        "hidden_act": draw(st.sampled_from(ACTIVATIONS)),
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-5, 1e-2])),
        "tie_word_embeddings": draw(st.booleans()),
        "rope_parameters": draw(rotations()),
        "attention_dropout": draw(st.sampled_from([0.0, 0.1])),
    }
    if kind != "mistral":
        found["attention_bias"] = draw(st.booleans())
    if kind == "llama":
        found["mlp_bias"] = draw(st.booleans())
    if kind == "mistral":
        found["sliding_window"] = draw(st.sampled_from([None, 2, 5, 40]))
    if kind == "qwen3" and draw(st.booleans()):
        found |= {"use_sliding_window": True, "sliding_window": draw(st.sampled_from([2, 5, 40]))}
        found["max_window_layers"] = draw(st.integers(0, n_layers))
        kinds = st.sampled_from(["full_attention", "sliding_attention"])
        found["layer_types"] = draw(st.none() | st.lists(kinds, min_size=n_layers, max_size=n_layers))
    return found


def rewrite(folder: Path, **changes) -> None:
    """Change keys of config.json; without those whose value is an ellipsis."""
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def ours_of(checkpoint) -> GPT:
    model = GPT(architectures()["gpt"].config(**checkpoint["model_config"])).eval()
    model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in checkpoint["state_dict"].items()})
    return model


@torch.no_grad()
def check_same(ours: GPT, theirs: transformers.PreTrainedModel) -> None:
    """Equal logits, and equal greedy continuations of several prompts at once."""
    ids = torch.randint(ours.config.vocab_size, (2, 20), generator=torch.Generator().manual_seed(0))
    expected = theirs(ids).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(ids), expected, atol=1e-5, rtol=1e-5)
    found = generate(ours, PROMPTS, max_new_tokens=15, temperature=0.0, eos_id=END)
    for prompt, continuation in zip(PROMPTS, found, strict=True):
        chosen = theirs.generate(torch.tensor([prompt]), max_new_tokens=15, do_sample=False, pad_token_id=END)
        new = chosen[0, len(prompt) :].tolist()
        assert continuation == (new[: new.index(END)] if END in new else new)


def check_options(kind: str, data: st.DataObject) -> None:
    """In and out with drawn options: equal logits, text and tensors."""
    theirs = decoder(kind, BPE, **data.draw(options(kind)))
    with TemporaryDirectory() as root:
        before, after = Path(root) / "in", Path(root) / "out"
        save(theirs, BPE, before)
        if data.draw(st.booleans(), "older keys"):
            rope = json.loads((before / "config.json").read_text())["rope_parameters"]
            theta, name = rope.pop("rope_theta"), rope.pop("rope_type")
            scaling = None if name == "default" else {data.draw(st.sampled_from(["type", "rope_type"])): name, **rope}
            rewrite(before, rope_parameters=..., rope_theta=theta, rope_scaling=scaling)
        checkpoint = import_folder(before, "a model").content
        check_same(ours_of(checkpoint), theirs)
        export(checkpoint, after)
        tensors = [load_file(folder / "model.safetensors") for folder in (before, after)]
        assert tensors[0].keys() == tensors[1].keys()
        assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
        loaded, report = type(theirs).from_pretrained(after, output_loading_info=True)
        assert not any(report.values())
        check_same(ours_of(checkpoint), loaded.eval())
        again = import_folder(after, "a model").content
        assert again["model_config"] == checkpoint["model_config"]
        assert again["tokenizer"] == checkpoint["tokenizer"]
        assert again["special_tokens"] == checkpoint["special_tokens"]


@pytest.mark.parametrize("kind", DECODERS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_options_go_in_and_out_with_equal_logits_text_and_tensors(kind, data):
    check_options(kind, data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DECODERS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_more_options(kind, data):
    check_options(kind, data)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}
LLAMA3 = {**YARN, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
WINDOWS = {"use_sliding_window": True, "sliding_window": 5}
NO_IMPORT = [  # kind, keys of config.json, what is said
    ("llama", {"hidden_act": "mish"}, "hidden_act 'mish'"),
    ("llama", {"hidden_act": "quick_gelu"}, "hidden_act 'quick_gelu'"),
    ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling of config.json has rope_type"),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type 'dynamic'"),
    ("llama", {"rope_scaling": LONG}, "rope_type 'longrope'"),
    ("llama", {"rope_scaling": {"rope_type": "proportional"}}, "rope_type 'proportional'"),
    ("llama", {"rope_scaling": {"rope_type": "linear"}}, "has no factor"),
    ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 0.5}}, "rope_factor is 0.5"),
    ("llama", {"rope_scaling": {"rope_type": "linear", "factor": "2"}}, "factor '2', which is not a number"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
    ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor 0.5"),
    ("llama", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "'full_attention'"),
    ("llama", {"rope_theta": -1, "rope_parameters": ...}, "rope_base is -1"),
    ("llama", {"rope_scaling": {**LLAMA3, "low_freq_factor": 2.0}}, "low_freq_factor 2.0"),
    ("llama", {"rope_scaling": {**LLAMA3, "high_freq_factor": 8.0}}, "high_freq_factor 8.0"),
    ("qwen3", {"rope_scaling": {**YARN, "beta_fast": 16}}, "beta_fast 16"),
    ("qwen3", {"rope_scaling": {**YARN, "beta_slow": 2}}, "beta_slow 2"),
    ("qwen3", {"rope_scaling": {**YARN, "truncate": False}}, "truncate False"),
    ("qwen3", {"rope_scaling": {**YARN, "attention_factor": 1.0}}, "attention_factor 1.0"),
    ("qwen3", {"rope_scaling": {**YARN, "mscale": 1.0}}, "mscale 1.0"),
    ("qwen3", {"rope_scaling": {**YARN, "mscale_all_dim": 0.8}}, "mscale_all_dim 0.8"),
    ("llama", {"sliding_window": 8}, "sliding_window 8: a llama has no windows"),
    ("llama", {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
    ("mistral", {"sliding_window": 0}, "sliding_window 0"),
    ("mistral", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
    ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "no sliding_window that is used"),
    ("qwen3", {**WINDOWS, "layer_types": ["full_attention"]}, "for each of the 2 layers"),
    ("qwen3", {**WINDOWS, "layer_types": ["full_attention", "linear_attention"]}, "layer_types"),
    ("qwen3", {**WINDOWS, "layer_types": ["chunked_attention", "full_attention"]}, "layer_types"),
    ("llama", {"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
    ("llama", {"per_layer_config": {"0": {"intermediate_size": 8}}}, "per_layer_config"),
    ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
    ("mistral", {"architectures": ["MistralForTokenClassification"]}, "MistralForTokenClassification"),
    ("qwen3", {"architectures": ["Qwen3ForQuestionAnswering"]}, "Qwen3ForQuestionAnswering"),
    ("qwen3", {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"]}, "a Qwen3MoeForCausalLM"),
    ("mistral", {"model_type": "mixtral", "architectures": None}, "model_type 'mixtral'"),
    ("llama", {"num_key_value_heads": 3}, "n_kv_heads 3"),
    ("llama", {"num_attention_heads": 0}, "n_heads is 0"),
    ("llama", {"head_dim": 7}, "is 7, odd"),
    ("llama", {"rms_norm_eps": 0.0}, "norm_eps is 0.0"),
    ("llama", {"attention_bias": "yes"}, "attention_bias 'yes', which is not true or false"),
    ("llama", {"attention_bias": True}, "has no tensor model.layers.0.self_attn.k_proj.bias"),
    ("llama", {"tie_word_embeddings": True}, "tensor lm_head.weight differs from model.embed_tokens.weight"),
    ("qwen3", {"eos_token_id": 10**6}, "eos_token_id 1000000"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("decoders")
    return {kind: save(decoder(kind, BPE), BPE, root / kind) for kind in DECODERS}


@pytest.mark.parametrize(("kind", "keys", "said"), NO_IMPORT, ids=[f"{kind}: {said}" for kind, _, said in NO_IMPORT])
def test_what_cannot_be_imported_is_named(run, folders, tmp_path, kind, keys, said):
    before = (folders[kind] / "config.json").read_bytes()
    rewrite(folders[kind], **keys)
    status, _, err = run("import", "--from", folders[kind], "--output", tmp_path / "x.ckpt")
    (folders[kind] / "config.json").write_bytes(before)
    assert status == 2
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


NO_EXPORT = [  # network, changes, what is said
    ("llama", {"activation": "elu"}, "no activation 'elu'"),
    ("llama", {"gated": False}, "llama has only gated True: a network with False"),
    ("llama", {"value_residual": True}, "llama has only value_residual False"),
    ("llama", {"parallel": True}, "llama has only parallel False"),
    ("llama", {"norm_type": "rms_plain"}, "llama has only norm_type 'rms'"),
    ("llama", {"first_norm": False}, "llama has only first_norm True"),
    ("llama", {"attention_softcap": 20.0}, "llama has only attention_softcap None"),
    ("llama", {"logit_softcap": 20.0}, "llama has only logit_softcap None"),
    ("llama", {"mup_width": 16}, "llama has only mup_width None"),
    ("llama", {"n_value_embeddings": 1}, "llama has only n_value_embeddings 0"),
    ("llama", {"n_future_tokens": 2}, "llama has only n_future_tokens 1"),
    ("llama", {"rope_fraction": 0.5}, "llama has only rope_fraction 1.0"),
    ("llama", {"rope_local_base": 100.0}, "llama has only rope_local_base None"),
    ("llama", {"rope_scaling": "ntk", "rope_factor": 2.0}, "llama has no rope_scaling 'ntk'"),
    ("llama", {"d_model": 30, "head_dim": 8}, "llama has only a d_model that n_heads divides"),
    ("mistral", {"bias": True}, "mistral has only bias False"),
    ("mistral", {"mlp_bias": True}, "mistral has only mlp_bias False"),
    ("mistral", {"window": [4, 5]}, "mistral has one window"),
    ("mistral", {"window_pattern": "LG"}, "mistral has only window_pattern None"),
    ("mistral", {"dilation": 2}, "mistral has only dilation 1"),
    ("qwen3", {"bias": True}, "qwen3 has only mlp_bias False: a network with True"),
    ("qwen3", {"window": [4, 5, 4], "window_pattern": None}, "qwen3 has one window"),
    ("qwen3", {"dilation": 2}, "qwen3 has only dilation 1"),
    ("qwen3", {"value_residual": True}, "qwen3 has only value_residual False"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "changes", "said"), NO_EXPORT, ids=[f"{name}: {said}" for name, _, said in NO_EXPORT])
def test_what_has_no_format_is_named_before_anything_is_written(tmp_path, kind, changes, said):
    _, checkpoint = checkpoint_of(f"gpt of a {kind}", **changes)
    with pytest.raises(InputError, match=said):
        export(checkpoint, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "kind", "keys"),
    [
        ({}, "llama", {"num_key_value_heads": 4, "head_dim": 8, "attention_bias": False, "rope_scaling": None}),
        ({"activation": "swiglu", "gated": False}, "llama", {"hidden_act": "silu"}),
        ({"activation": "geglu", "bias": True}, "llama", {"hidden_act": "gelu", "mlp_bias": True}),
        ({"window": 6}, "mistral", {"sliding_window": 7}),
        ({"qk_norm": True}, "qwen3", {"use_sliding_window": False, "layer_types": ["full_attention"] * 2}),
        ({"qk_norm": True, "window": [6, 6]}, "qwen3", {"layer_types": ["sliding_attention"] * 2}),
        (
            {"qk_norm": True, "window": 6, "window_pattern": "GL"},
            "qwen3",
            {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 7, "max_window_layers": 1},
        ),
    ],
)
def test_a_network_has_the_format_that_its_choices_name(tmp_path, changes, kind, keys):
    ours, checkpoint = checkpoint_of("gpt of a llama", **{"n_kv_heads": None, "mlp_bias": None, **changes})
    written = export(checkpoint, tmp_path / "out").config
    assert written["model_type"] == kind
    assert {key: written[key] for key in keys} == keys
    check_same(ours, transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval())


def test_shards_are_read(tmp_path):
    theirs = decoder("llama", BPE)
    save(theirs, BPE, tmp_path)
    whole = import_folder(tmp_path, "a model").content["state_dict"]
    (tmp_path / "model.safetensors").unlink()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    found = import_folder(tmp_path, "a model").content["state_dict"]
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_a_missing_window_is_not_a_window_of_null(tmp_path):
    save(decoder("mistral", BPE, sliding_window=None), BPE, tmp_path)
    assert import_folder(tmp_path, "a model").content["model_config"]["window"] is None
    rewrite(tmp_path, sliding_window=...)  # as Mistral's first files: the class has a default
    assert import_folder(tmp_path, "a model").content["model_config"]["window"] == 4095
