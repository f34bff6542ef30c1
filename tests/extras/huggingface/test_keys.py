"""Every key of config.json that a network of HuggingFace's reads is read here too, refused, or of no effect."""

import importlib
import inspect
import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors
from transformers import masking_utils, modeling_rope_utils
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from src.errors import InputError
from src.extras.huggingface import importing, rope, windows
from src.extras.huggingface.adapters import ADAPTERS
from src.extras.huggingface.importing import import_folder
from tests.extras.huggingface.networks import network

# what changes no output of the classes that are read: training, tokens, heads of other classes, kernels
NO_EFFECT = {
    *("initializer_range", "initializer_cutoff_factor", "classifier_dropout", "hidden_dropout", "mlp_dropout"),
    *(
        "activation_dropout",
        "encoder_layerdrop",
        "decoder_layerdrop",
        "embd_pdrop",
        "qa_dropout",
        "seq_classif_dropout",
    ),
    *("pad_token_id", "eos_token_id", "sep_token_id", "decoder_start_token_id", "num_labels", "use_cache"),
    *("summary_activation", "summary_first_dropout", "summary_last_dropout", "summary_proj_to_labels"),
    *("summary_type", "summary_use_proj", "classifier_pooling", "sparse_prediction", "sparse_pred_ignore_index"),
    *("_attn_implementation", "deterministic_flash_attn", "reorder_and_upcast_attn", "chunk_size_feed_forward"),
    *("output_attentions", "output_hidden_states", "return_dict", "onnx_export"),
    *("is_encoder_decoder", "is_decoder"),  # of classes whose name says it
    "problem_type",  # of classifiers, whose own tests have it
    "attention_chunk_size",  # of layer_types that are refused
    *("get_text_config", "json", "default_theta", "standardize_rope_params", "validate_rope"),  # no keys
}
FAMILIES: dict[str, list] = {}
for formats in ADAPTERS.values():
    for adapter in formats:
        FAMILIES.setdefault(adapter.model_type, []).append(adapter)
READ = re.compile(r"\bconfig\.(\w+)|getattr\((?:self\.)?config, \"(\w+)\"")


def keys_of(module) -> set[str]:
    return {one or other for one, other in READ.findall(inspect.getsource(module))}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_no_key_of_effect_is_left_unread(model_type):
    modeling = CONFIG_MAPPING[model_type].__module__.replace("configuration_", "modeling_")
    theirs = keys_of(importlib.import_module(modeling)) | keys_of(modeling_rope_utils)
    if FAMILIES[model_type][0].architecture in ("gpt", "transformer"):
        theirs |= keys_of(masking_utils) - {"sliding_window"}  # of networks whose own code names it
    modules = {importlib.import_module(one.__module__) for a in FAMILIES[model_type] for one in type(a).__mro__[:-2]}
    said = "".join(inspect.getsource(module) for module in (*modules, importing, rope, windows))
    assert {key for key in theirs - NO_EFFECT if f'"{key}"' not in said} == set()


@pytest.mark.parametrize("model_type", FAMILIES)
def test_all_names_of_a_key_are_known(model_type):
    for adapter in FAMILIES[model_type]:
        assert adapter.aliases == CONFIG_MAPPING[model_type].attribute_map


ROPE = {"type": "linear", "factor": 4.0, "rope_theta": 1e4, "partial_rotary_factor": 1.0}
REFUSED = [
    *[(case, {"is_causal": False}, "is_causal False") for case in (
        "gpt2: tied", "gpt_neox: untied", "llama", "mistral", "qwen3", "marian: shared", "bart", "pegasus",
    )],
    ("gpt_neox: untied", {"rope_parameters": None, "rotary_pct": 1.0, "rope_scaling": ROPE}, "rope_type 'linear'"),
    ("gpt_neox: untied", {"rope_parameters": ROPE}, "rope_type 'linear'"),
    ("gpt_neox: untied", {"head_dim": 4}, "head_dim 4"),
    ("modernbert: masked words", {"head_dim": 4}, "head_dim 4"),
    ("modernbert: masked words", {"sliding_window": 1}, "sliding_window 1"),
    ("modernbert: masked words", {"rope_parameters": {"full_attention": ROPE}}, "rope_type 'linear'"),
    ("modernbert: masked words", {"rope_parameters": ROPE}, "rope_parameters of config.json has '"),
    ("gpt2: tied", {"num_attention_heads": 1}, "num_attention_heads 1: the two are one"),
    ("distilbert: masked words", {"num_hidden_layers": 1}, "num_hidden_layers 1: the two are one"),
    ("bart", {"hidden_size": 2}, "hidden_size 2: the two are one"),
    ("llama", {"layer_types": ["full_attention"]}, "for each of the 2 layers"),
    ("mistral", {"layer_types": ["full_attention"] * 3}, "layer_types"),
    ("longformer: masked words", {"attention_window": [5, 8]}, "attention_window [5, 8]"),
    ("longformer: masked words", {"attention_window": [0, 8]}, "attention_window [0, 8]"),
    ("llama", {"num_hidden_layers": 3_000_000}, "3,000,000 layers"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Gives the folder of a model of a kind, made once, to be left as it is."""
    root, made = tmp_path_factory.mktemp("keys"), {}

    def give(case):
        if case not in made:
            made[case] = root / str(len(made))
            network(case, made[case])
        return made[case]

    return give


@pytest.fixture
def changed(folders, tmp_path):
    """Makes a copy of a model with other keys in one of its files; an ellipsis takes a key away."""

    def make(case, file="config.json", **changes):
        folder = shutil.copytree(folders(case), tmp_path / "model")
        path = folder / file
        content = {**(json.loads(path.read_text()) if path.exists() else {}), **changes}
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
        return folder

    return make


@pytest.mark.parametrize(("case", "changes", "said"), REFUSED, ids=[f"{case}: {said}" for case, _, said in REFUSED])
def test_what_would_make_another_network_is_refused_by_name(changed, case, changes, said):
    with pytest.raises(InputError, match=re.escape(said)):
        import_folder(changed(case, **changes), "a model")


@pytest.mark.parametrize(
    ("case", "key", "alias"), [("gpt2: tied", "n_head", "num_attention_heads"), ("bart", "d_model", "hidden_size")]
)
def test_another_name_of_a_key_is_read(changed, folders, case, key, alias):
    expected = import_folder(folders(case), "a model").content["model_config"]
    value = json.loads((folders(case) / "config.json").read_text())[key]
    found = import_folder(changed(case, **{key: ..., alias: value}), "a model").content["model_config"]
    assert found == expected


@pytest.mark.parametrize("theta", [3580165449.0, 1e12])
def test_a_large_base_of_the_angles_is_read(changed, theta):
    folder = changed("llama", rope_parameters={"rope_type": "default", "rope_theta": theta})
    assert import_folder(folder, "a model").content["model_config"]["rope_base"] == theta


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_weights_that_are_no_floating_point_numbers_are_refused(changed, dtype):
    path = changed("llama") / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.1.self_attn.q_proj.weight"
    save_file({**tensors, name: tensors[name].to(dtype)}, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"tensor {name} is {str(dtype).removeprefix('torch.')}"):
        import_folder(path.parent, "a model")


@pytest.mark.parametrize("weights", ["sparse", "meta", "no name", "no dimension"])
def test_a_pickle_of_other_tensors_is_refused(changed, weights):
    folder = changed("roberta: masked words")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    name = next(name for name in tensors if name.endswith("position_embeddings.weight"))
    tensors |= {
        "sparse": {name: tensors[name].to_sparse()},
        "meta": {name: tensors[name].to("meta")},
        "no name": {0: tensors[name]},
        "no dimension": {name: torch.tensor(1.0)},
    }[weights]
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="more than tensors" if weights == "no name" else name):
        import_folder(folder, "a model")


# ---- tokens


@pytest.mark.parametrize(
    "settings", [{"bos_token": "<|endoftext|>"}, {"bos_token": ...}], ids=["the end token", "none"]
)
def test_the_token_that_a_tokenizer_puts_before_a_text_begins_prompts(changed, settings):
    folder = changed("llama", "tokenizer_config.json", **settings)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    start = [("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=start)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert import_folder(folder, "a model").content["special_tokens"]["bos_token"] == "<|endoftext|>"


BESIDE = [
    ("llama", "tokenizer_config.json", {"additional_special_tokens": ["<|x|>"]}),
    ("llama", "tokenizer_config.json", {"extra_special_tokens": {"image_token": "<|x|>"}}),
    ("llama", "tokenizer_config.json", {"added_tokens_decoder": {"300": {"content": "<|x|>"}}}),
    ("llama", "added_tokens.json", {"<|x|>": 300}),
    ("gpt2: tied", "tokenizer_config.json", {"add_prefix_space": True}),
    ("bert: encoder", "tokenizer_config.json", {"do_lower_case": False}),
]


@pytest.mark.parametrize(("case", "file", "content"), BESIDE, ids=str)
def test_what_contradicts_a_tokenizer_json_is_refused(changed, case, file, content):
    with pytest.raises(InputError, match=re.escape("<|x|>" if "llama" in case else next(iter(content)))):
        import_folder(changed(case, file, **content), "a model")


@pytest.mark.parametrize("single", ["[CLS] $A", "$A [SEP] [CLS]"])
def test_rows_that_are_not_berts_are_refused(changed, single):
    folder = changed("bert: classifier")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(InputError, match=r"makes the row .*: here it is \[CLS\] a \[SEP\]"):
        import_folder(folder, "a model")


def test_another_name_of_a_special_token_is_refused(changed):
    folder = changed("bert: classifier", "tokenizer_config.json", cls_token="<s>")
    with pytest.raises(InputError, match=r"names '<s>' as its cls_token, and its tokenizer has '\[CLS\]'"):
        import_folder(folder, "a model")


def test_tokens_that_end_a_text_elsewhere_are_told(changed):
    folder = changed("llama", "generation_config.json", eos_token_id=[0, 7])
    assert "generation_config.json has [7] among its eos_token_id: here 0 alone ends a text" in (
        import_folder(folder, "a model").notes
    )
