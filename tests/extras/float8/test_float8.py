"""Products in float8: which layers compute them, what they give, and runs that train by them."""

import json

import pytest
import torch
from torch import nn

from src.architectures import architectures
from src.checkpoint import load_trained
from src.errors import InputError
from src.extras.float8.callbacks import Float8, has_float8
from src.models import GPT, GPTConfig
from tests.distributed.jobs import STEPS, fit, losses, run_job, write_config

E4M3 = 448.0  # the largest number of the format
EMULATED = ["--trainer.callbacks", json.dumps([{"class_path": "Float8", "init_args": {"emulate": True}}])]


def gpt(**shape) -> GPT:
    torch.manual_seed(0)
    sizes = {"max_seq_len": 12, "d_model": 32, "n_heads": 2, "n_layers": 2, "dropout": 0.0, "attention_dropout": 0.0}
    return architectures()["gpt"].network(GPTConfig(30, **{**sizes, **shape}))


def rounded(x: torch.Tensor) -> torch.Tensor:
    """The nearest numbers of float8 with one scale for all."""
    scale = E4M3 / x.abs().max()
    return (x * scale).to(torch.float8_e4m3fn).float() / scale


@pytest.mark.parametrize("recipe", ["tensorwise", "rowwise"])
def test_the_linear_layers_of_the_blocks_are_converted_and_no_others(recipe):
    plain, model = gpt(d_ff=40), gpt(d_ff=40)
    Float8(recipe, emulate=True).adapt(model)
    converted = {name for name, module in model.named_modules() if type(module).__name__ == "Float8Linear"}
    assert converted == {f"blocks.{i}.attention.{name}" for i in (0, 1) for name in ("qkv", "out")}  # 40 / 16 is odd
    assert type(model.head) is type(plain.head)
    for (name, weight), (other, expected) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(weight, expected), name


def test_a_product_is_that_of_the_rounded_numbers():
    model, x = gpt(), torch.randn(3, 5, 32)
    layer = model.blocks[0].feed_forward.up
    nn.init.normal_(layer.bias)
    expected = nn.functional.linear(rounded(x), rounded(layer.weight), layer.bias)
    exact = layer(x)
    Float8(emulate=True).adapt(model)
    found = model.blocks[0].feed_forward.up(x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert 1e-3 < ((found - exact).norm() / exact.norm()).item() < 0.1


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_config("gpt", tmp_path_factory.mktemp("gpt"))


def test_a_run_is_near_that_of_float32_and_leaves_an_ordinary_checkpoint(config, run, tmp_path):
    for name, more in {"float32": [], "float8": EMULATED}.items():
        status, _, err = run(*fit(config, tmp_path / name, "gpt", 1, *more))
        assert status == 0, err
    exact, found = (losses(tmp_path / name / "gpt/version_0") for name in ("float32", "float8"))
    assert len(found) == STEPS
    assert found[-1] < found[0] - 0.3
    assert found != exact
    assert found == pytest.approx(exact, abs=0.05)
    saved = load_trained(tmp_path / "float8/gpt/version_0/checkpoints/last.ckpt", GPT).model
    assert not any(type(module).__name__ == "Float8Linear" for module in saved.modules())


@pytest.mark.skipif(torch.cuda.is_available() and has_float8(torch.device("cuda")), reason="there is such a device")
def test_a_device_without_float8_is_refused_in_a_line(config, run, tmp_path):
    status, _, err = run(*fit(config, tmp_path, "gpt", 1, "--trainer.callbacks", "Float8"))
    assert (status, err.count("\n")) == (2, 1), err
    assert "Float8: the device cpu does not multiply float8: it takes a GPU of compute capability 8.9" in err


def test_cut_matrices_are_refused_in_a_line(config, run, tmp_path):
    cut = ["--config", "configs/strategy/tensor_parallel.yaml", "--trainer.devices", "2"]
    status, _, err = run(*fit(config, tmp_path, "gpt", 1, *cut, *EMULATED))
    assert (status, err.count("\n")) == (2, 1), err
    assert "tensor-parallel ranks: choose ddp or fsdp" in err


def test_a_network_without_such_layers_is_refused():
    with pytest.raises(InputError, match="sizes that are multiples of 16: change d_model"):
        Float8(emulate=True).adapt(gpt(d_model=12))


def test_without_torchao_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("src.extras.float8.callbacks.find_spec", lambda name: None)
    with pytest.raises(InputError, match="EXTRAS=float8"):
        Float8(emulate=True).adapt(gpt())


@pytest.mark.slow
def test_two_processes_train_as_one(config, tmp_path):
    """By FSDP: each process rounds the gathered weights, and with another scale what its own rows give."""
    commands = [fit(config, tmp_path / "alone", "gpt", 1, *EMULATED)]
    run_job(tmp_path / "job1", commands, processes=1)
    more = ["--config", "configs/strategy/fsdp.yaml", "--trainer.devices", "2", *EMULATED]
    run_job(tmp_path / "job2", [fit(config, tmp_path / "fsdp", "gpt", 2, *more)])
    expected = losses(tmp_path / "alone/gpt/version_0")
    assert losses(tmp_path / "fsdp/gpt/version_0") == pytest.approx(expected, abs=0.02)


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", ["tensorwise", "rowwise"])
@pytest.mark.parametrize("tokens", [16, 5])
def test_a_gpu_gives_the_emulated_products_and_gradients(recipe, tokens):
    device = torch.device("cuda")
    if not has_float8(device):
        pytest.skip("this GPU has no float8")
    found = []
    for emulate in (True, False):
        model = gpt()
        Float8(recipe, emulate=emulate).adapt(model)
        layer = model.to(device, torch.bfloat16).blocks[0].feed_forward.up
        x = torch.randn(2, tokens, 32, generator=torch.Generator().manual_seed(0))
        x = x.to(device, torch.bfloat16).requires_grad_()
        y = layer(x)
        y.square().sum().backward()
        found.append([y, x.grad, layer.weight.grad])
    for emulated, real in zip(*found, strict=True):
        assert ((emulated - real).norm() / emulated.norm()).item() < 0.02
