"""docs/extending.md: its examples train from outside the package, and are what their papers say."""

import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch.nn.functional import softplus

import src.cli
from src.architectures import ARCHITECTURES
from src.checkpoint import read_checkpoint
from src.decoding import generate
from src.distributed.plans import check_tensor_parallel
from src.errors import InputError
from src.models import GPT, GPTConfig
from src.nn import POSITIONS, BlockConfig, Mask
from tests.distributed.jobs import losses

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs/extending.md").read_text(encoding="utf-8")
SHAPE = {"vocab_size": 31, "d_model": 16, "n_layers": 2}
GPT_SHAPE = {**SHAPE, "max_seq_len": 24, "n_heads": 2, "dropout": 0.0, "attention_dropout": 0.0}


def forget():
    """Leave the examples' modules and what they register as before their import."""
    for name in ("kerple", "z_loss", "min_gru"):
        sys.modules.pop(name, None)
        ARCHITECTURES.pop(name, None)
        POSITIONS.pop(name, None)


@pytest.fixture(autouse=True)
def _outside(monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    yield
    forget()


def drawn(network):
    """The network in evaluation mode, with weights that are large enough to tell its outputs apart."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return network.eval()


def near(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def ids(batch, length):
    return torch.randint(SHAPE["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["kerple.py", "z_loss.py", "min_gru.py", "min_gru.yaml"])
def test_the_page_has_the_code_that_is_tested(name):
    code = (HERE / name).read_text(encoding="utf-8")
    assert f"```{name.rpartition('.')[2].replace('py', 'python')}\n{code}```" in PAGE
    assert f"/{name}), {len(code.splitlines())} lines" in PAGE


# ---- a position encoding


def test_kerple_is_its_formula():
    layer = drawn(import_module("kerple").KerpleAttention(BlockConfig(d_model=16, n_heads=2)))
    x = torch.randn(1, 6, 16)
    q, k, v = layer._heads(layer.qkv(x), 3)
    y = torch.zeros(1, 2, 6, 8)
    for head in range(2):
        r1, r2 = softplus(layer.r1[head]), softplus(layer.r2[head])
        for i in range(6):
            scores = [q[0, head, i] @ k[0, head, j] / 8**0.5 - r1 * (1 + r2 * (i - j)).log() for j in range(i + 1)]
            y[0, head, i] = torch.stack(scores).softmax(0) @ v[0, head, : i + 1]
    near(layer(x, Mask(6, causal=True)), layer._merge(y))
    near(layer.weights(x, Mask(6, causal=True))[0, 1, 5], torch.stack(scores).softmax(0))


@torch.no_grad()
def test_kerple_decodes_what_it_trains():
    import_module("kerple")
    network = drawn(GPT(GPTConfig(**GPT_SHAPE, positions="kerple")))
    row, cache = ids(2, 12), network.new_cache()
    assert {"blocks.0.attention.r1", "blocks.1.attention.r2"} <= dict(network.named_parameters()).keys()
    near(torch.cat([network(row[:, a:b], cache=cache) for a, b in ((0, 7), (7, 8), (8, 12))], 1), network(row))
    with pytest.raises(InputError, match="a learned bias cannot be cut over tensor-parallel ranks"):
        check_tensor_parallel(network, 2)
    with pytest.raises(InputError, match="attention 'flash' takes no bias of the scores: choose 'dense'"):
        GPT(GPTConfig(**GPT_SHAPE, positions="kerple", attention="flash"))(row)


def test_kerple_trains_resumes_and_generates(run, config, tmp_path):
    more = ("--allow_class_paths", "kerple")
    status, _, err = run("fit", "--config", config, *more, "--model.config.positions", "kerple")
    assert status == 0, err
    folder = tmp_path / "logs/tiny/version_0"
    validation = losses(folder, "val/loss")
    assert validation[-1] < validation[0]
    last = folder / "checkpoints/last.ckpt"
    learned = read_checkpoint(last)["state_dict"]["model.blocks.0.attention.r1"]
    assert not torch.equal(learned, torch.linspace(-1, 1, 2))
    forget()
    status, _, err = run("generate", "--checkpoint", last)
    assert (status, err.count("\n")) == (2, 1)
    assert "positions is 'kerple': choose one of learned, " in err
    assert "add --allow_class_paths kerple" in err
    assert run("generate", "--checkpoint", last, "--max-new-tokens", 3, *more)[0] == 0
    assert run("fit", "--ckpt_path", last, "--trainer.max_steps", 14, *more)[0] == 0


# ---- an objective


def test_the_z_loss_is_its_formula():
    logits, labels = torch.randn(2, 3, 5), torch.tensor([[1, 4, -100], [0, -100, 2]])
    expected = {"cross_entropy": 0.0, "z_loss": 0.0}
    for row, position in ((0, 0), (0, 1), (1, 0), (1, 2)):
        z = logits[row, position].exp().sum()
        expected["cross_entropy"] += z.log() - logits[row, position, labels[row, position]]
        expected["z_loss"] += 0.1 * z.log() ** 2
    task = import_module("z_loss").ZLossModule
    found = task.summed_losses(SimpleNamespace(z_weight=0.1), logits, {"labels": labels})
    torch.testing.assert_close(found, expected)


def test_the_z_loss_trains_and_resumes_and_leaves_a_gpt(run, config, tmp_path):
    more = ("--allow_class_paths", "z_loss")
    status, _, err = run("fit", "--config", config, *more, "--model", "z_loss.ZLossModule", "--model.z_weight", 0.1)
    assert status == 0, err
    folder = tmp_path / "logs/tiny/version_0"
    settings = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]
    assert (settings["z_weight"], settings["config"]["d_model"]) == (0.1, 16)  # its own, and its parent's
    parts = [losses(folder, f"train/{name}") for name in ("cross_entropy", "z_loss", "loss")]
    assert parts[2] == pytest.approx([a + b for a, b in zip(*parts[:2], strict=True)], rel=1e-5)
    assert all(part[-1] < part[0] for part in parts)
    last = folder / "checkpoints/last.ckpt"
    assert run("fit", "--ckpt_path", last, "--trainer.max_steps", 14, *more)[0] == 0
    forget()  # what it trained is a GPT: to use it needs no module
    assert run("generate", "--checkpoint", last, "--max-new-tokens", 3)[0] == 0
    if "export" in src.cli.VERBS:  # an extra's verb
        assert run("export", "--checkpoint", last, "--output", tmp_path / "out")[0] == 0


# ---- an architecture


@torch.no_grad()
def test_min_gru_is_its_recurrence():
    layer, x = drawn(import_module("min_gru").MinGRU(BlockConfig(d_model=16, n_heads=1), 0)), torch.randn(2, 13, 16)
    h, states = torch.zeros(2, 16), []
    for t in range(13):
        z = layer.gate(x[:, t]).sigmoid()
        h = (1 - z) * h + z * layer.candidate(x[:, t])
        states.append(h)
    near(layer(x, Mask(13)), layer.out(torch.stack(states, 1)))


@torch.no_grad()
def test_min_gru_decodes_pads_and_keeps_documents_apart_as_it_trains():
    module = import_module("min_gru")
    network = drawn(module.MinGRUDecoder(module.MinGRUConfig(**SHAPE)))
    row, cache = ids(1, 12), network.new_cache()
    whole = network(row)
    near(torch.cat([network(row[:, a:b], cache=cache) for a, b in ((0, 7), (7, 8), (8, 12))], 1), whole)
    documents = torch.tensor([[0] * 5 + [1] * 7])
    near(network(row, documents=documents), torch.cat([network(row[:, :5]), network(row[:, 5:])], 1))
    check_tensor_parallel(network, 2)
    changed = row.clone()
    changed[0, 9] += 1
    near(network(changed % 31)[:, :9], whole[:, :9])
    prompts = [row[0, :4].tolist(), row[0].tolist()]
    settings = {"max_new_tokens": 8, "temperature": 0}
    together = generate(network, prompts, **settings)
    assert together == [generate(network, [prompt], **settings)[0] for prompt in prompts]
    assert together == generate(network, prompts, use_cache=False, **settings)


def test_min_gru_trains_resumes_generates_and_is_not_exported(run, config, tmp_path):
    more = ("--allow_class_paths", "min_gru")
    shape = ("--config", HERE / "min_gru.yaml", "--model.config.d_model", 16, "--trainer.max_steps", 12)
    status, _, err = run("fit", "--config", config, *shape, *more)
    assert status == 0, err
    folder = tmp_path / "logs/min_gru/version_0"
    validation = losses(folder, "val/loss")
    assert validation[-1] < validation[0] - 0.1
    last = folder / "checkpoints/last.ckpt"
    status, out, _ = run("generate", "--checkpoint", last, "--max-new-tokens", 9, "--prompt", "the", *more)
    assert status == 0
    assert out.startswith("the")
    status, _, err = run("fit", "--ckpt_path", last, "--trainer.max_steps", 14, *more)
    assert status == 0, err
    if "export" in src.cli.VERBS:  # an extra's verb
        status, _, err = run("export", "--checkpoint", last, "--output", tmp_path / "out", *more)
        assert (status, err.count("\n")) == (2, 1)
        assert "no counterpart of a min_gru" in err
