"""HuggingFace's JSON with values of other types than meant: null is not set, the rest is refused in one line."""

import json
import math

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from src.errors import InputError
from src.extras.huggingface.adapters import ADAPTERS
from src.extras.huggingface.importing import import_folder
from src.tokenization import END_OF_TEXT, train_bpe, train_wordpiece
from tests.extras.huggingface.networks import LABELS, bert, decoder, gpt2, longformer, marian, network, save
from tests.random_networks import TEXT

CONFIG, SETTINGS, SPECIAL, ADDED = (
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
BPE, WORDPIECE = train_bpe(TEXT, 300), train_wordpiece(TEXT, 80)
END = {"eos_token": END_OF_TEXT, "bos_token": END_OF_TEXT, "unk_token": END_OF_TEXT, "pad_token": END_OF_TEXT}
# with every key that is read: `transformers` leaves some of them out
TOKENIZERS = {
    "gpt2": {
        SETTINGS: {**END, "add_prefix_space": False},
        SPECIAL: {**END, "eos_token": {"content": END_OF_TEXT, "lstrip": False, "normalized": True}},
        ADDED: {"<extra>": 300},
    },
    "bert": {
        SETTINGS: {
            "unk_token": "[UNK]",
            "sep_token": "[SEP]",
            "cls_token": {"content": "[CLS]"},
            "mask_token": "[MASK]",
            "do_lower_case": True,
            "strip_accents": True,
            "tokenize_chinese_chars": True,
        },
        SPECIAL: {"unk_token": "[UNK]", "mask_token": {"content": "[MASK]"}},
    },
    "longformer": {},
    "marian": {},
    "llama": {},
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 12}
MODELS = {
    "gpt2": (lambda: gpt2(BPE, vocab_size=301), BPE),
    "bert": (lambda: bert(WORDPIECE, "classifier", problem_type="single_label_classification", **LABELS), WORDPIECE),
    "longformer": (lambda: longformer(WORDPIECE), WORDPIECE),
    "marian": (lambda: marian(BPE, BPE, shared=True), BPE),
    "llama": (lambda: decoder("llama", BPE, tie_word_embeddings=True, rope_parameters=YARN), BPE),
}
# keys that may hold one value or a list of such
MANY = ("architectures", "attention_window", "eos_token_id", "decoder_start_token_id")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model of each kind, those of GPT-2 and BERT with the older files of a tokenizer, which JSON complements."""
    root = tmp_path_factory.mktemp("foreign")
    for kind, (make, tokenizer) in MODELS.items():
        folder = save(make(), tokenizer, root / kind)
        if TOKENIZERS[kind]:
            (folder / "tokenizer.json").unlink()
            tokenizer.model.save(str(folder))
        for file, content in TOKENIZERS[kind].items():
            (folder / file).write_text(json.dumps(content))
        config = {"tie_word_embeddings": True, **json.loads((folder / CONFIG).read_text())}
        (folder / CONFIG).write_text(json.dumps({key: value for key, value in config.items() if is_read(kind, key)}))
    return root


def is_read(kind, key):
    """Whether a key says something of the network here; one of the others is kept beside them."""
    (adapter, *_) = [adapter for formats in ADAPTERS.values() for adapter in formats if adapter.model_type == kind]
    known = {key for key, _ in adapter.keys.values()} | set(adapter.fixed) | {adapter.activation[0]}
    known |= {"architectures", "model_type", "problem_type", "id2label", "attention_window", "transformers_version"}
    known |= {"rope_parameters"} if kind == "llama" else set()
    return key in known or key.endswith("_token_id") or key.startswith(("decoder_", "share_"))


def outcome(folder, file=None, content=None):
    """What the import gives with another content of a file, or what it says."""
    if file is None:
        return import_folder(folder, "a model").content
    path = folder / file
    before = path.read_bytes()
    try:
        path.write_text(json.dumps(content))
        return import_folder(folder, "a model").content
    except InputError as error:
        return str(error)
    finally:
        path.write_bytes(before)


def same(one, other):
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    weights = one["state_dict"], other["state_dict"]
    return {**one, "state_dict": None} == {**other, "state_dict": None} and all(
        torch.equal(weights[0][name], weights[1][name]) for name in weights[0] | weights[1]
    )


def type_of(value):
    return "number" if type(value) in (int, float) else type(value).__name__


SCALARS = st.sampled_from(
    [None, True, False, 0, 1, 2, -1, 1.5, math.nan, math.inf, 2**31, 10**400, "", "12", "a word", END_OF_TEXT]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["content", "0", "1", "x"]), inner),
    max_leaves=4,
)
PROPERTY = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much, HealthCheck.too_slow],
)


@pytest.mark.parametrize("kind", MODELS)
@PROPERTY
@given(data=st.data())
def test_a_value_of_another_type_is_refused_or_changes_nothing(folders, kind, data):
    folder = folders / kind
    file = data.draw(st.sampled_from([CONFIG, *TOKENIZERS[kind]]))
    content = json.loads((folder / file).read_text())
    key = data.draw(st.sampled_from(sorted(content)))
    value = data.draw(VALUES)
    found = outcome(folder, file, {**content, key: value})
    if value is None:
        del content[key]
        assert same(found, outcome(folder, file, content))
    elif type_of(value) != type_of(content[key]):
        assume(key not in MANY and not (isinstance(value, dict) and "content" in value) and key not in END)
        assert isinstance(found, str) or same(found, outcome(folder))


@pytest.mark.parametrize("kind", MODELS)
def test_null_is_not_set_whatever_the_key(folders, kind):
    """Each key by itself: the import is what it is without the key."""
    for file in (CONFIG, *TOKENIZERS[kind]):
        content = json.loads((folders / kind / file).read_text())
        for key in content:
            without = {name: value for name, value in content.items() if name != key}
            null, missing = (outcome(folders / kind, file, c) for c in ({**content, key: None}, without))
            assert same(null, missing), (file, key)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("value", ["12", True, [3], {"x": 1}, 1.5, math.nan, 10**400], ids=repr)
def test_what_is_no_whole_number_is_refused_by_its_key(folders, kind, value):
    content = json.loads((folders / kind / CONFIG).read_text())
    key = {"gpt2": "n_layer", "marian": "encoder_layers"}.get(kind, "num_hidden_layers")
    found = outcome(folders / kind, CONFIG, {**content, key: value})
    assert isinstance(found, str)
    assert f"config.json has {key} " in found
    assert "not a whole number" in found


@pytest.mark.parametrize("file", [CONFIG, SETTINGS, SPECIAL, ADDED])
@pytest.mark.parametrize("content", [[], ["x"], "text", 3, None, True], ids=repr)
def test_a_file_that_holds_no_object_is_named(folders, file, content):
    found = outcome(folders / "gpt2", file, content)
    assert file in found
    assert "does not hold an object" in found


def test_nulls_for_the_tokens_of_a_gpt(run, folders, tmp_path):
    """As older scripts write them; what is imported can be used."""
    folder = folders / "gpt2"
    before = (folder / SETTINGS).read_bytes()
    (folder / SETTINGS).write_text(json.dumps(dict.fromkeys([*END, "add_prefix_space"])))
    status, _, err = run("import", "--from", folder, "--output", tmp_path / "x.ckpt")
    (folder / SETTINGS).write_bytes(before)
    assert (status, err) == (0, "")
    assert run("generate", "--checkpoint", tmp_path / "x.ckpt", "--prompt", "the", "--max-new-tokens", "2")[0] == 0


def test_several_end_tokens_are_one_and_told(folders):
    folder = folders / "gpt2"
    content = json.loads((folder / CONFIG).read_text())
    end = content["eos_token_id"]
    assert same(outcome(folder, CONFIG, {**content, "eos_token_id": [end]}), outcome(folder))
    before = (folder / CONFIG).read_bytes()
    (folder / CONFIG).write_text(json.dumps({**content, "eos_token_id": [end, 5, 6]}))
    found = import_folder(folder, "a model")
    (folder / CONFIG).write_bytes(before)
    assert same(found.content, outcome(folder))
    assert [note for note in found.notes if "eos_token_id" in note and "[5, 6]" in note]


LABELLED = {
    "null": (None, None),
    "missing": (..., None),
    "from 1": ({"1": "no", "2": "perhaps", "3": "yes"}, None),
    "one too few": ({"0": "no", "1": "yes"}, None),
    "twice the same": ({"0": "no", "1": "yes", "2": "yes"}, None),
    "numbers": ({"0": 5, "1": 6, "2": 7}, None),
    "in another order": ({"2": "yes", "0": "no", "1": "perhaps"}, ["no", "perhaps", "yes"]),
}


@pytest.mark.parametrize("case", LABELLED)
def test_labels_have_their_names_or_are_known_by_number(folders, case):
    folder, (labels, names) = folders / "bert", LABELLED[case]
    before = (folder / CONFIG).read_bytes()
    content = {**json.loads(before), "id2label": labels}
    if labels is ...:
        del content["id2label"]
    (folder / CONFIG).write_text(json.dumps(content))
    found = import_folder(folder, "a model")
    (folder / CONFIG).write_bytes(before)
    assert found.content["model_config"]["n_labels"] == 3  # by the weights
    assert found.content.get("label_names") == names
    assert [note for note in found.notes if "id2label" in note] == found.notes
    assert len(found.notes) == (names is None)


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression", "ranking", 3])
def test_a_head_that_is_no_softmax_is_refused_by_name(folders, problem):
    content = json.loads((folders / "bert" / CONFIG).read_text())
    found = outcome(folders / "bert", CONFIG, {**content, "problem_type": problem})
    assert isinstance(found, str)
    assert f"problem_type {problem!r}" in found


def test_a_head_of_one_label_is_a_reranker(tmp_path):
    save(bert(WORDPIECE, "classifier", num_labels=1), WORDPIECE, tmp_path)
    assert import_folder(tmp_path, "a model").content["model_config"]["n_labels"] == 1


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("gpt2", "GPT2ForSequenceClassification"),
        ("bert", "BertForTokenClassification"),
        ("bert", "BertForMultipleChoice"),
        ("longformer", "LongformerForQuestionAnswering"),
        ("marian", "MarianForCausalLM"),
    ],
)
def test_what_is_refused_is_named_as_its_architecture(folders, kind, name):
    content = json.loads((folders / kind / CONFIG).read_text())
    found = outcome(folders / kind, CONFIG, {**content, "architectures": [name]})
    assert isinstance(found, str)
    assert name in found
    found = outcome(folders / kind, CONFIG, {**content, "architectures": [name], "model_type": "llama"})
    assert name in found
    assert "'llama'" in found


@pytest.mark.parametrize("case", ["bert: classifier", "bert: encoder", "gpt2: tied"])
def test_without_architectures_the_tensors_say_what_it_is(tmp_path, case):
    network(case, tmp_path)
    content = json.loads((tmp_path / CONFIG).read_text())
    named = outcome(tmp_path)
    for architectures in (None, [], content["architectures"][0]):
        assert same(outcome(tmp_path, CONFIG, {**content, "architectures": architectures}), named)


def test_a_byte_order_mark_is_no_part_of_json(folders):
    path = folders / "gpt2" / CONFIG
    before, found = path.read_bytes(), outcome(folders / "gpt2")
    path.write_bytes(b"\xef\xbb\xbf" + before)
    assert same(outcome(folders / "gpt2"), found)
    path.write_bytes(before)


def test_a_vocabulary_that_is_not_utf_8(folders):
    path = folders / "bert/vocab.txt"
    before = path.read_bytes()
    path.write_bytes(before + b"caf\xe9\n")
    with pytest.raises(InputError, match="not UTF-8"):
        import_folder(folders / "bert", "a model")
    path.write_bytes(before)
