"""RoBERTa, DistilBERT and ModernBERT with options that no network here has: refused by name, with nothing written."""

import json
from contextlib import contextmanager
from pathlib import Path

import pytest

from src.errors import InputError
from src.extras.huggingface.importing import import_folder
from tests.extras.huggingface.networks import ENCODERS, save
from tests.random_networks import WORDPIECE


@contextmanager
def changed(folder: Path, **keys):
    path = folder / "config.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), **keys}))
    try:
        yield
    finally:
        path.write_text(before)


SCALED = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
CLASSES = ("TokenClassification", "QuestionAnswering", "MultipleChoice")
ALL = {  # key -> values
    "tie_word_embeddings": [False],
    "vocab_size": [0, 79, "80"],
    "max_position_embeddings": [-1],
    "initializer_range": [0.0],
    "model_type": ["t5"],
}
REFUSED = {
    "roberta": {
        **ALL,
        "position_embedding_type": ["relative_key", "relative_key_query"],
        "is_decoder": [True],
        "add_cross_attention": [True],
        "hidden_act": ["relu", "gelu_new", "silu", "mish", "quick_gelu", "laplace"],
        "hidden_size": [30, 64],
        "num_attention_heads": [0, 5, 2.5],
        "num_hidden_layers": [0, 3],
        "intermediate_size": [47],
        "type_vocab_size": [-1, 3],
        "hidden_dropout_prob": [1.0],
        "attention_probs_dropout_prob": [-0.1],
        "layer_norm_eps": [0.0],
        "pad_token_id": ["<pad>"],
        "architectures": [[f"RobertaFor{name}"] for name in (*CLASSES, "CausalLM")],
    },
    "distilbert": {
        **ALL,
        "sinusoidal_pos_embds": [True],
        "activation": ["mish", "quick_gelu", "laplace", "relu6", "gelu_10", "linear", "hardswish"],
        "dim": [30, 64],
        "n_heads": [0, 5],
        "n_layers": [0, 3],
        "hidden_dim": [47],
        "dropout": [1.0],
        "attention_dropout": [-0.1],
        "architectures": [[f"DistilBertFor{name}"] for name in (*CLASSES, "SequenceClassification")],
    },
    "modernbert": {
        **ALL,
        **{key: [True] for key in ("norm_bias", "attention_bias", "mlp_bias", "classifier_bias")},
        "decoder_bias": [False],
        "classifier_activation": ["relu", "mish"],
        "hidden_activation": ["relu", "mish", "quick_gelu", "laplace"],
        "layer_types": [["chunked_attention"] * 4, ["full_attention"] * 3],
        "global_attn_every_n_layers": [0],
        "local_attention": [-2],
        "full_attention": [{"rope_parameters": {"full_attention": SCALED | {"rope_type": kind}}} for kind in (
            "linear", "yarn", "llama3", "dynamic", "longrope", "proportional")],
        "sliding_attention": [{"rope_parameters": {"sliding_attention": SCALED}}],
        "rope_scaling": [{"rope_type": "linear", "factor": 2.0}],
        "hidden_size": [28, 64],
        "num_hidden_layers": [3],
        "intermediate_size": [47],
        "norm_eps": [0.0],
        "embedding_dropout": [1.0],
        "architectures": [[f"ModernBertFor{name}"] for name in (*CLASSES, "SequenceClassification")],
    },
}  # fmt: skip
# what a message calls these keys, where it is not as they are called there: by the names here, or by the tensors
CALLED = {
    "max_position_embeddings": ("max_seq_len", "position_embeddings.weight"),
    "vocab_size": ("vocab_size", "embeddings.weight"),
    "initializer_range": ("init_std",),
    "hidden_size": ("d_model", " x 64"),
    "dim": ("d_model", " x 64"),
    "num_attention_heads": ("n_heads", "num_attention_heads"),
    "num_hidden_layers": ("n_layers", "layer.2.", "layers.3.", "layer_types"),
    "n_layers": ("n_layers", "layer.2."),
    "intermediate_size": ("tensor",),
    "hidden_dim": ("tensor",),
    "type_vocab_size": ("n_segments", "token_type_embeddings"),
    "hidden_dropout_prob": ("dropout is 1.0",),
    "embedding_dropout": ("dropout is 1.0",),
    "attention_probs_dropout_prob": ("attention_dropout is -0.1",),
    "layer_norm_eps": ("norm_eps",),
}
CHANGES = [
    (model_type, key, value) for model_type, keys in REFUSED.items() for key, values in keys.items() for value in values
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("encoders")
    return {name: save(make(WORDPIECE), WORDPIECE, root / name) for name, make in ENCODERS.items()}


@pytest.mark.parametrize(("model_type", "key", "value"), CHANGES, ids=str)
def test_what_no_network_here_has_is_refused_by_name(folders, model_type, key, value):
    keys = value if isinstance(value, dict) and "rope_parameters" in value else {key: value}
    named = value[0] if key == "architectures" else key
    with changed(folders[model_type], **keys), pytest.raises(InputError) as refused:
        import_folder(folders[model_type], "a model")
    said = str(refused.value)
    assert any(name in said for name in (named, *CALLED.get(key, ()))), said
    assert "\n" not in said


@pytest.mark.parametrize("model_type", ENCODERS)
def test_a_refusal_leaves_no_file(run, folders, tmp_path, model_type):
    with changed(folders[model_type], tie_word_embeddings=False):
        status, _, err = run("import", "--from", folders[model_type], "--output", tmp_path / "x.ckpt")
    assert (status, err.count("\n")) == (2, 1)
    assert not list(tmp_path.iterdir())


def test_at_least_twenty_options_of_each_are_tried():
    assert all(sum(map(len, keys.values())) >= 20 for keys in REFUSED.values())


def test_a_head_that_is_no_softmax_is_refused_by_name(tmp_path):
    save(ENCODERS["roberta"](WORDPIECE, "classifier", problem_type="regression"), WORDPIECE, tmp_path)
    with pytest.raises(InputError, match="a RobertaForSequenceClassification with problem_type 'regression'"):
        import_folder(tmp_path, "a model")
