"""Adapters: what they compute, train, save, and what is merged; and files that HuggingFace's peft reads."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from src.architectures import architectures
from src.checkpoint import load_trained, read_checkpoint, save_checkpoint, tied_names
from src.errors import InputError
from src.extras.lora.callbacks import LoRA
from src.extras.lora.layers import PARTS, LoRALinear
from src.extras.lora.merging import merge
from src.models import BERTClassifier, BERTClassifierConfig, BERTConfig, GPTConfig, LongformerConfig, TransformerConfig
from src.models.network import Network
from tests.conftest import LACKS
from tests.distributed.jobs import HALFWAY, STEPS, fit, losses, run_job, write_config

SHAPE = {"max_seq_len": 12, "d_model": 16, "n_heads": 2, "vocab_size": 30, "dropout": 0.0, "attention_dropout": 0.0}
NETWORKS = {
    "gpt": GPTConfig(**SHAPE, n_layers=2, n_kv_heads=1, activation="swiglu", qk_norm=True, positions="rotary"),
    "bert_classifier": BERTClassifierConfig(**SHAPE, n_layers=1, n_labels=3),
    "longformer": LongformerConfig(**SHAPE, n_layers=1, window=2, global_tokens=[0]),
    "transformer": TransformerConfig(**SHAPE, n_encoder_layers=1, n_decoder_layers=1),
}


def network(name: str) -> Network:
    torch.manual_seed(0)
    return architectures()[name].network(NETWORKS[name]).eval()


def adapted(name: str, **settings) -> Network:
    """The same with adapters that are not zero."""
    model = network(name)
    LoRA(**settings).adapt(model)
    for module in model.modules():
        if isinstance(module, LoRALinear):
            torch.nn.init.normal_(module.lora_B.weight, std=0.3)
    return model.eval()


def output(model: Network) -> torch.Tensor:
    ids = torch.arange(20).view(2, 10)
    with torch.no_grad():
        found = (
            model(ids, ids) if hasattr(model, "decoder_blocks") or "Transformer" in type(model).__name__ else model(ids)
        )
    return getattr(found, "masked_words", found)


@pytest.mark.parametrize("name", NETWORKS)
def test_merged_weights_compute_what_the_adapted_network_does(name):
    plain, model = network(name), adapted(name, rank=2, alpha=3.0)
    content = {"state_dict": {f"model.{key}": value for key, value in model.state_dict().items()}}
    merge(content)
    merged = network(name)
    merged.load_state_dict({key.removeprefix("model."): value for key, value in content["state_dict"].items()})
    torch.testing.assert_close(output(merged), output(model), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(output(plain), output(model), atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_adapters_begin_as_the_network_and_alone_are_trained(name):
    plain, model = network(name), network(name)
    LoRA(rank=2).adapt(model)
    assert torch.equal(output(plain), output(model))
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(key.endswith(PARTS) or key.startswith("classifier.") for key in trained)
    layers = [m for block in plain.modules() for m in block.modules() if isinstance(m, torch.nn.Linear)]
    assert trained
    assert layers
    LoRA(rank=2, targets=["qkv"], also_train=["*norm*"]).adapt(again := network(name))
    own = {key.rpartition(".lora_")[0] for key, _ in again.named_parameters() if ".lora_" in key}
    assert own
    assert all(layer.endswith(".qkv") for layer in own)


@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 4), st.floats(0.1, 32), st.booleans())
def test_a_layer_is_its_formula(n_in, n_out, rank, alpha, bias):
    layer = LoRALinear(torch.nn.Linear(n_in, n_out, bias=bias).double(), rank, alpha)
    torch.nn.init.normal_(layer.lora_B.weight)
    x = torch.randn(3, n_in, dtype=torch.float64)
    product = layer.lora_B.weight @ layer.lora_A.weight * alpha / rank
    expected = torch.nn.functional.linear(x, layer.weight + product, layer.bias)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)  # the scaling is in float32
    assert not layer.weight.requires_grad


def test_a_classifier_learns_beside_its_adapters():
    model, before = network("bert_classifier"), network("bert_classifier").state_dict()
    LoRA(rank=2).adapt(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    ids, labels, found = torch.arange(20).view(2, 10), torch.tensor([0, 2]), []
    for _ in range(100):
        loss = torch.nn.functional.cross_entropy(model(ids), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert found[-1] < 0.8 * found[0]
    after = model.state_dict()
    for name, weight in before.items():
        assert torch.equal(after[name], weight) != name.startswith("classifier."), name
    assert all(weight.any() for name, weight in after.items() if name.endswith("lora_B.weight"))


# ---- runs


@pytest.fixture
def base(run, config, tmp_path) -> Path:
    """A checkpoint of some steps."""
    status, _, err = run("fit", "--config", config, "--experiment", "base", "--trainer.max_steps", 6)
    assert status == 0, err
    return tmp_path / "logs/base/version_0/checkpoints/last.ckpt"


def lora(config: Path, base: Path, *more: object) -> list[object]:
    over = ["--config", "configs/extras/lora/lora.yaml", "--experiment", "lora", "--model.pretrained", base]
    constant = ["--model.schedule", "Constant"]  # whose rate does not depend on how long a run is to be
    return ["fit", "--config", config, *over, *constant, "--model.optimizer.lr", 0.02, *more]


def test_a_gpt_is_adapted_resumed_and_used(run, config, base, tmp_path):
    status, out, err = run(*lora(config, base))
    assert status == 0, err
    assert "of them trained" in " ".join(out.split())
    folder = tmp_path / "logs/lora/version_0"
    path = folder / "checkpoints/last.ckpt"
    frozen, saved = read_checkpoint(base)["state_dict"], torch.load(path, weights_only=True)
    adapters = [name for name in saved["state_dict"] if name.endswith(PARTS[:2])]
    assert all(torch.equal(weight, saved["state_dict"][name]) for name, weight in frozen.items())
    assert len(saved["optimizer_states"][0]["state"]) == len(adapters)
    assert losses(folder, "val/loss")[-1] < losses(base.parents[1], "val/loss")[-1]

    # whoever reads it has the merged weights, and computes what the run did
    _, out, err = run("validate", "--ckpt_path", path)
    expected = losses(folder, "val/loss")[-1]
    assert losses(tmp_path / "logs/lora/version_1", "val/loss")[-1] == pytest.approx(expected, abs=1e-5)
    assert run("generate", "--checkpoint", path, "--prompt", "the", "--max-new-tokens", 3)[0] == 0
    assert not any(name.endswith(PARTS) for name in read_checkpoint(path)["state_dict"])

    # cut in half and gone on with, it is the same run
    assert run(*lora(config, base, "--trainer.max_steps", 6, "--experiment", "cut"))[0] == 0
    status, _, err = run(*lora(config, base, "--experiment", "cut", "--resume", "auto"))
    assert status == 0, err
    resumed = torch.load(tmp_path / "logs/cut/version_0/checkpoints/last.ckpt", weights_only=True)
    for name, weight in saved["state_dict"].items():
        assert torch.equal(weight, resumed["state_dict"][name]), name


@pytest.mark.parametrize(
    ("settings", "message"), [({"rank": 4}, "trained 128 numbers of blocks.0."), ({"alpha": 8}, "has alpha 16, not 8")]
)
def test_going_on_with_another_adapter_is_refused_in_a_line(run, config, base, tmp_path, settings, message):
    assert run(*lora(config, base, "--trainer.max_steps", 1))[0] == 0
    path = tmp_path / "logs/lora/version_0/checkpoints/last.ckpt"
    callbacks = json.dumps([{"class_path": "LoRA", "init_args": settings}])
    status, _, err = run(*lora(config, base, "--ckpt_path", path, f"--trainer.callbacks={callbacks}"))
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_a_rollback_takes_the_adapters_from_the_checkpoint(run, config, base, tmp_path):
    """And the weights beside them as they were, not merged."""
    poison = {"class_path": "tests.reliability.probes.Poison", "init_args": {"where": "loss", "steps": [8]}}
    callbacks = json.dumps([{"class_path": "LoRA"}, poison])
    more = [f"--trainer.callbacks={callbacks}", "--allow_class_paths", "tests", "--guard.on_fault", "rollback"]
    status, out, err = run("fit", "--config", config, "--model.pretrained", base, "--experiment", "rolled", *more)
    assert status == 0, err
    assert "back to the weights of step 6" in out
    saved = torch.load(tmp_path / "logs/rolled/version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(saved[name], weight) for name, weight in read_checkpoint(base)["state_dict"].items())
    assert any(saved[name].any() for name in saved if name.endswith("lora_B.weight"))


def test_an_adapter_is_taken_out_and_merged(run, config, base, tmp_path):
    assert run(*lora(config, base, "--trainer.max_steps", 4))[0] == 0
    path, folder = tmp_path / "logs/lora/version_0/checkpoints/last.ckpt", tmp_path / "adapter"
    status, _, err = run("lora", "extract", "--checkpoint", path, "--output", folder)
    assert status == 0, err
    tensors, settings = (
        load_file(folder / "adapter_model.safetensors"),
        json.loads((folder / "adapter_config.json").read_text()),
    )
    assert settings["peft_type"] == "LORA"
    assert (settings["r"], settings["lora_alpha"]) == (8, 16)
    assert len(tensors) == 2 * len(settings["target_modules"])
    status, _, err = run(
        "lora", "merge", "--checkpoint", base, "--adapter", folder, "--output", tmp_path / "merged.ckpt"
    )
    assert status == 0, err
    one, two = read_checkpoint(path)["state_dict"], read_checkpoint(tmp_path / "merged.ckpt")["state_dict"]
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert run("generate", "--checkpoint", tmp_path / "merged.ckpt", "--prompt", "the", "--max-new-tokens", 3)[0] == 0

    # neither is replaced
    for verb, more, output in (
        ("extract", ("--checkpoint", path), folder),
        ("merge", ("--checkpoint", base, "--adapter", folder), tmp_path / "merged.ckpt"),
    ):
        status, _, err = run("lora", verb, *more, "--output", output)
        assert (status, f"{output} is there already" in err, err.count("\n")) == (2, True, 1)

    # into other weights, or with settings that are more than LoRA: one line, and nothing written
    for of, what in ((path, "on other weights"), (base, "use_dora")):
        status, _, err = run("lora", "merge", "--checkpoint", of, "--adapter", folder, "--output", tmp_path / "x.ckpt")
        assert status == 2
        assert what in err
        assert len(err.strip().splitlines()) == 1
        assert not (tmp_path / "x.ckpt").exists()
        (folder / "adapter_config.json").write_text(json.dumps({**settings, "use_dora": True}))
    status, _, err = run("lora", "extract", "--checkpoint", base, "--output", tmp_path / "none")
    assert (status, "has no adapter" in err) == (2, True)


def test_peft_reads_what_is_written(tmp_path):
    peft = pytest.importorskip("peft", reason=f"{LACKS} peft")
    from src.extras.lora.peft import write_adapter

    model = adapted("bert_classifier", rank=2, alpha=3.0)
    torch.nn.init.normal_(model.classifier.weight)
    content = {"state_dict": {f"model.{name}": weight for name, weight in model.state_dict().items()}}
    content["trained"] = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    merge(content)
    write_adapter(content, Path("some.ckpt"), tmp_path)
    theirs = peft.PeftModel.from_pretrained(network("bert_classifier"), str(tmp_path)).eval()
    torch.testing.assert_close(output(theirs.base_model.model), output(model), atol=1e-5, rtol=1e-5)


def checkpoint_of(name: str, model: Network) -> dict:
    """What a merge reads of a checkpoint, with tied weights tied."""
    state = {f"model.{key}": weight.detach() for key, weight in model.state_dict().items()}
    return {"architecture": name, "model_config": asdict(model.config), "state_dict": state}


def merged_output(name: str, content: dict) -> torch.Tensor:
    model = architectures()[name].network(architectures()[name].config(**content["model_config"])).eval()
    model.load_state_dict({key.removeprefix("model."): weight for key, weight in content["state_dict"].items()})
    return output(model)


def written_by_peft(model: Network, folder: Path, seed: int | None = 0, **settings) -> torch.Tensor:
    """Write an adapter that is not zero, and return what the network computes with it.

    Args:
        model: whose layers peft replaces.
        folder: to write.
        seed: of each tensor's values, alike for all; those of peft's initialization if None.
        settings: of peft's.
    """
    peft = pytest.importorskip("peft", reason=f"{LACKS} peft")
    theirs = peft.get_peft_model(model, peft.LoraConfig(**{"r": 2, "lora_alpha": 3, **settings})).eval()
    for key, parameter in theirs.named_parameters():
        if seed is not None and ("lora_" in key or "modules_to_save" in key):
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(seed))
    theirs.save_pretrained(str(folder))
    return output(theirs.base_model.model)


def untied(name: str) -> Network:
    config = replace(NETWORKS[name], **({"tie_embeddings": False} if name in ("gpt", "transformer") else {}))
    torch.manual_seed(0)
    return architectures()[name].network(config).eval()


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["qkv", "down"], "use_rslora": True, "lora_dropout": 0.1},
        {
            "target_modules": ["qkv", "down"],
            "init_lora_weights": "gaussian",
            "exclude_modules": ["blocks.0.attention.qkv"],
        },
        {"target_modules": ["qkv", "down"], "init_lora_weights": "orthogonal"},
        {"target_modules": ["qkv"], "modules_to_save": ["final_norm"]},
        {"target_modules": ["head"], "modules_to_save": ["token_embedding"]},
    ],
    ids=["rslora", "gaussian", "orthogonal", "norm", "untied"],
)
def test_what_peft_writes_is_merged(tmp_path, settings):
    from src.extras.lora.peft import merge_adapter

    content = checkpoint_of("gpt", untied("gpt"))
    expected = written_by_peft(untied("gpt"), tmp_path, **settings)
    merge_adapter(content, Path("some.ckpt"), tmp_path)
    torch.testing.assert_close(merged_output("gpt", content), expected, atol=1e-5, rtol=1e-5)


# ---- tied weights

TIED = {
    "gpt": (replace(NETWORKS["gpt"], tie_embeddings=True), ["token_embedding", "head"]),
    "bert": (BERTConfig(**SHAPE, n_layers=1), ["encoder.token_embedding", "masked_words.decoder"]),
    "longformer": (NETWORKS["longformer"], ["encoder.token_embedding", "masked_words.decoder"]),
    "transformer": (
        replace(NETWORKS["transformer"], tie_embeddings=True),
        ["target_embedding", "source_embedding", "head"],
    ),
}


def tied(name: str) -> Network:
    torch.manual_seed(0)
    return architectures()[name].network(TIED[name][0]).eval()


@pytest.mark.parametrize("where", ["target_modules", "modules_to_save"])
@pytest.mark.parametrize("name", TIED)
def test_one_of_two_tied_weights_is_not_merged(tmp_path, name, where):
    from src.extras.lora.peft import merge_adapter

    layer = TIED[name][1][-1].rpartition(".")[2]
    settings = {"target_modules": ["out"], where: [layer]}
    written_by_peft(tied(name), tmp_path, **settings)
    with pytest.raises(InputError, match=r"differ, which are one tied weight in some\.ckpt: train it without them"):
        merge_adapter(checkpoint_of(name, tied(name)), Path("some.ckpt"), tmp_path)


@pytest.mark.parametrize("name", ["gpt", "transformer"])
def test_tied_weights_that_change_alike_are_merged(tmp_path, name):
    from src.extras.lora.peft import merge_adapter

    content = checkpoint_of(name, tied(name))
    expected = written_by_peft(tied(name), tmp_path, target_modules=["out"], modules_to_save=TIED[name][1])
    merge_adapter(content, Path("some.ckpt"), tmp_path)
    torch.testing.assert_close(merged_output(name, content), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", TIED)
def test_a_tied_weight_trained_beside_adapters_is_taken_out_and_merged(tmp_path, name):
    """By any of its names, to what peft and a merge give all of them."""
    peft = pytest.importorskip("peft", reason=f"{LACKS} peft")
    from src.extras.lora.peft import merge_adapter, write_adapter

    model = tied(name)
    LoRA(rank=2, alpha=3.0, also_train=[f"{TIED[name][1][-1]}.weight"]).adapt(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    content = checkpoint_of(name, model)
    content["trained"] = {key: p.numel() for key, p in model.named_parameters() if p.requires_grad}
    groups = {key.removeprefix("model.") for group in tied_names(content) for key in group}
    assert groups == {f"{layer}.weight" for layer in TIED[name][1]}
    assert not any(f"{layer}.{PARTS[0]}" in model.state_dict() for layer in TIED[name][1])
    merge(content)
    write_adapter(content, Path("run.ckpt"), tmp_path)
    theirs = peft.PeftModel.from_pretrained(tied(name), str(tmp_path)).eval()
    torch.testing.assert_close(output(theirs.base_model.model), output(model), atol=1e-5, rtol=1e-5)
    base = checkpoint_of(name, tied(name))
    merge_adapter(base, Path("base.ckpt"), tmp_path)
    torch.testing.assert_close(merged_output(name, base), output(model), atol=1e-5, rtol=1e-5)


# ---- what is not merged

LAYER = "base_model.model.blocks.0.attention.qkv"
NORM = "base_model.model.final_norm"
OTHER_DTYPES = (torch.int8, torch.float8_e4m3fn, torch.complex64)
PLAIN = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["qkv"], "bias": "none"}


def refusal(folder: Path, settings: dict, change=lambda tensors: tensors) -> str:
    """Write an adapter of one layer as it is changed, and return why it is not merged."""
    from src.extras.lora.peft import merge_adapter

    n_out, n_in = untied("gpt").blocks[0].attention.qkv.weight.shape
    tensors = {f"{LAYER}.lora_A.weight": torch.ones(2, n_in), f"{LAYER}.lora_B.weight": torch.ones(n_out, 2)}
    save_file(change(tensors), folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**PLAIN, **settings}))
    with pytest.raises(InputError) as error:
        merge_adapter(checkpoint_of("gpt", untied("gpt")), Path("some.ckpt"), folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"use_qalora": True},
        {"lora_bias": True},
        {"fan_in_fan_out": True},
        {"bias": "lora_only"},
        {"init_lora_weights": "pissa_niter_16"},
        {"rank_pattern": {"qkv": 4}},
        {"alpha_pattern": {"qkv": 4}},
        {"alora_invocation_tokens": [1, 2]},
        {"trainable_token_indices": [1]},
        {"layer_replication": [[0, 2], [1, 2]]},
        {"target_parameters": ["qkv.weight"]},
        {"use_bdlora": {"nblocks": 2}},
        {"arrow_config": {"top_k": 2}},
        {"setting_of_a_later_peft": True},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_what_is_more_than_plain_lora_is_not_merged(tmp_path, settings):
    assert f"has {next(iter(settings))} {next(iter(settings.values()))!r}"[:60] in refusal(tmp_path, settings)


@pytest.mark.parametrize(
    "settings",
    [{"r": value} for value in (True, 0, 2.0, "2", 10**500)]
    + [{"lora_alpha": value} for value in (True, float("nan"), float("inf"), "3", 10**500)],
    ids=lambda settings: f"{next(iter(settings.items()))}"[:30],
)
def test_a_rank_and_alpha_that_are_no_numbers_are_refused(tmp_path, settings):
    assert "a whole r of at least 1 and a finite alpha" in refusal(tmp_path, settings)


def of(part: str, change) -> Callable[[dict], dict]:
    """Change one of the matrices."""
    return lambda tensors: tensors | {f"{LAYER}.{part}.weight": change(tensors[f"{LAYER}.{part}.weight"])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: {key: tensors[key] for key in tensors if "lora_A" not in key}, "qkv.lora_A.weight: use"),
        (lambda tensors: {key: tensors[key] for key in tensors if "lora_B" not in key}, "qkv.lora_B.weight: use"),
        (of("lora_A", lambda a: a[:1].clone()), "has r 2, but"),
        (of("lora_A", torch.Tensor.mean), "has r 2, but"),
        (of("lora_A", lambda a: a[:, :-1].contiguous()), "whose weight is"),
        (of("lora_B", lambda b: b[:-1].clone()), "whose weight is"),
        (of("lora_B", torch.Tensor.flatten), "whose weight is"),
        (lambda _: {f"{NORM}.lora_A.weight": torch.ones(2, 16), f"{NORM}.lora_B.weight": torch.ones(16, 2)}, "(16,)"),
        (of("lora_A", lambda a: a * float("nan")), "infinite or NaN"),
        *((of("lora_A", lambda a, dtype=dtype: a.to(dtype)), f"in {dtype}") for dtype in OTHER_DTYPES),
    ],
    ids=["no A", "no B", "rank", "scalar", "A", "B", "flat B", "norm", "nan", "int8", "float8", "complex"],
)
def test_matrices_that_do_not_fit_are_refused(tmp_path, change, message):
    assert message in refusal(tmp_path, {}, change)


def test_a_merge_into_no_checkpoint_file_is_refused(run, tmp_path):
    """Before anything is read."""
    options = ["--checkpoint", tmp_path / "none.ckpt", "--adapter", tmp_path, "--output", tmp_path / "merged"]
    status, _, err = run("lora", "merge", *options)
    assert (status, f"{tmp_path / 'merged'} must be a .ckpt file" in err) == (2, True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank must be at least 1"),
        ({"targets": ["c_attn"]}, "no linear layer 'c_attn': out, qkv, up, down"),
        ({"also_train": ["pooler.*"]}, "'pooler.*' matches no parameter"),
    ],
)
def test_what_cannot_be_adapted_is_refused_in_a_line(run, config, tmp_path, settings, message):
    callbacks = json.dumps([{"class_path": "LoRA", "init_args": settings}])
    status, _, err = run("fit", "--config", config, f"--trainer.callbacks={callbacks}")
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not list((tmp_path / "logs").glob("*/version_*"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("tensor_parallel",), "tensor-parallel ranks: choose ddp or fsdp"),
        (("fsdp", "--trainer.strategy.save_distributed_checkpoint", "true"), "save_distributed_checkpoint false"),
    ],
    ids=["tensor_parallel", "shards"],
)
def test_a_strategy_that_cannot_be_is_refused_in_a_line(run, config, more, message):
    strategy = ["--config", f"configs/strategy/{more[0]}.yaml", *more[1:], "--trainer.devices", 2]
    status, _, err = run("fit", "--config", config, *strategy, "--trainer.callbacks", "LoRA")
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_an_adapter_without_this_extra_is_refused_in_a_line(run, config, base, tmp_path, monkeypatch):
    assert run(*lora(config, base, "--trainer.max_steps", 1))[0] == 0
    monkeypatch.setattr("src.checkpoint.parts", lambda name: iter(()))
    with pytest.raises(InputError, match=r"blocks\.0\.attention\.[\w.]+, which its network does not have"):
        read_checkpoint(tmp_path / "logs/lora/version_0/checkpoints/last.ckpt")


def test_a_damaged_adapter_is_refused_in_a_line(run, config, base, tmp_path):
    content = read_checkpoint(base)
    content["state_dict"]["model.blocks.0.attention.qkv.lora_A.weight"] = torch.zeros(2, 3)
    save_checkpoint(content, tmp_path / "odd.ckpt")
    status, _, err = run("generate", "--checkpoint", tmp_path / "odd.ckpt", "--prompt", "a")
    assert (status, "an adapter without" in err) == (2, True)


# ---- several processes


@pytest.mark.parametrize(
    "name", ["fsdp", pytest.param("ddp", marks=pytest.mark.slow), pytest.param("pipeline", marks=pytest.mark.slow)]
)
def test_two_processes_train_as_one_does(tmp_path, name):
    path = write_config("bert_classifier", tmp_path)
    settings = yaml.safe_load(path.read_text())
    settings["trainer"]["callbacks"] = [{"class_path": "LoRA", "init_args": {"rank": 2}}]
    path.write_text(yaml.safe_dump(settings))
    run_job(tmp_path / "one", [fit(path, tmp_path / "one", "bert_classifier")], processes=1)
    more = ["--config", f"configs/strategy/{name}.yaml", "--trainer.devices", "2"]
    whole = fit(path, tmp_path / "two", "bert_classifier", 1 if name == "pipeline" else 2, *more)
    halfway = tmp_path / "two/bert_classifier/version_0/checkpoints" / f"{HALFWAY}.ckpt"
    run_job(tmp_path / "job", [whole, [*whole, "--ckpt_path", str(halfway)]])
    runs = [tmp_path / where / "bert_classifier" for where in ("one/", "two/")]
    expected = losses(runs[0] / "version_0")
    assert len(expected) == STEPS
    assert losses(runs[1] / "version_0") == pytest.approx(expected, abs=1e-4)
    assert losses(runs[1] / "version_1") == pytest.approx(expected[HALFWAY:], abs=1e-4)
    found = [load_trained(run / "version_0/checkpoints/last.ckpt", BERTClassifier).model for run in runs]
    ids = torch.arange(20).view(2, 10)
    torch.testing.assert_close(found[0](ids), found[1](ids), atol=1e-3, rtol=1e-3)
