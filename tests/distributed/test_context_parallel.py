"""Rows whose tokens are divided over processes are trained, evaluated and saved as one process does with whole ones."""

from functools import cache
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import yaml
from torch.testing._internal.distributed.fake_pg import FakeStore

from src.checkpoint import load_trained
from src.distributed.plans import check_context_parallel
from src.errors import InputError
from src.models import GPT, GPTConfig
from src.nn import TokenShards
from tests.distributed.jobs import HALFWAY, STEPS, fit, losses, run_job, write_config
from tests.distributed.test_strategies import COMPILED

WINDOW = {"attention": "sliding_window", "window": 3}
GROUPED = {"n_heads": 4, "n_kv_heads": 2, "qk_norm": True, "value_residual": True, "attention_softcap": 5.0}
GROUPED["token_shift"] = True
# what attention depends on: each process has other heads of all tokens
SHAPES = {
    "plain": {},
    "alibi": {"n_heads": 4, "positions": "alibi"},
    "window": {**WINDOW, "dilation": [1, 2], "positions": "sinusoidal"},
    "rotary": {**GROUPED, "positions": "rotary", "rope_fraction": 0.5, "logit_softcap": 10.0, "mup_width": 8},
}
APART = {"alibi", "rotary"}  # with documents kept apart


def options(context: int, **sizes: int) -> list[str]:
    more = {"context_parallel_size": context, **sizes}
    return [f"--trainer.strategy.init_args.{name}={size}" for name, size in more.items()]


def fsdp(devices: int, context: int = 2, **sizes: int) -> list[str]:
    spread = ["--config", "configs/strategy/fsdp.yaml", "--trainer.devices", str(devices)]
    return [*spread, *options(context, **sizes)]


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    root = tmp_path_factory.mktemp("gpt")
    settings = yaml.safe_load(write_config("gpt", root).read_text())
    shape = settings["model"]["init_args"]["config"]
    found = {}
    for name, more in SHAPES.items():
        settings["model"]["init_args"]["config"] = {**shape, **more}
        settings["data"]["init_args"]["separate_documents"] = name in APART
        found[name] = root / f"{name}.yaml"
        found[name].write_text(yaml.safe_dump(settings))
    return found


@pytest.fixture(scope="module")
def alone(configs, tmp_path_factory):
    """The run of one process, made when it is first asked for."""
    logs = tmp_path_factory.mktemp("alone")

    @cache
    def run_alone(name: str) -> Path:
        run_job(logs / "job", [fit(configs[name], logs / name, "gpt")], processes=1)
        return logs / name / "gpt/version_0"

    return run_alone


def assert_same_figures(run: Path, expected: Path) -> None:
    for metric, count in (("train/loss", STEPS), ("train/gradient_norm", STEPS), ("val/loss", 2)):
        figures = losses(expected, metric)
        assert len(figures) == count
        assert losses(run, metric) == pytest.approx(figures, abs=1e-4), metric


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "rotary" else pytest.mark.slow) for name in SHAPES]
)
def test_the_run_is_that_of_one_process(configs, alone, tmp_path, name):
    """With accumulation and clipping; its checkpoint is an ordinary one, and goes on where it was."""
    command = fit(configs[name], tmp_path, "gpt", 1, *fsdp(2))
    runs = [tmp_path / f"gpt/version_{n}" for n in (0, 1)]
    run_job(tmp_path / "job", [command, [*command, "--ckpt_path", str(runs[0] / f"checkpoints/{HALFWAY}.ckpt")]])
    assert_same_figures(runs[0], alone(name))
    first, resumed = map(losses, runs)
    assert resumed == pytest.approx(first[HALFWAY:], abs=1e-6)
    ids = torch.arange(9)[None]
    with torch.no_grad():
        found, expected = (
            load_trained(run / "checkpoints/last.ckpt", GPT).model(ids) for run in (runs[0], alone(name))
        )
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["bert", "transformer"])
def test_a_network_that_needs_whole_rows_is_refused_in_one_line(run, tmp_path, kind):
    status, _, err = run(*fit(write_config(kind, tmp_path), tmp_path, kind, 1, *fsdp(2)))
    assert status == 2, err
    assert "needs whole rows: context_parallel_size 2 is for" in err
    assert err.count("\n") == 1


def test_attention_with_a_bias_of_its_own_is_refused():
    with torch.device("meta"):
        network = GPT(GPTConfig(64, max_seq_len=16, d_model=16, n_heads=4, n_layers=1))
    network.blocks[0].attention.r = torch.nn.Parameter(torch.empty(4))
    with pytest.raises(InputError, match="SelfAttention cannot be divided over context-parallel ranks"):
        check_context_parallel(network, 2)


# processes along each dimension
MESHES = {
    "fsdp": {"data_parallel_size": 2},
    "hsdp": {"data_parallel_size": 2, "replicate_size": 2},
    "tensor_parallel": {"data_parallel_size": 1, "tensor_parallel_size": 2},
}


@pytest.mark.slow
def test_meshes_with_a_context_dimension(configs, alone, tmp_path):
    """On four processes, two a row."""
    pairs = [(mesh, "alibi") for mesh in MESHES] + [("fsdp", "rotary"), ("hsdp", "rotary")]  # of two heads of keys
    runs = {(mesh, name): tmp_path / mesh / name for mesh, name in pairs}
    commands = []
    for (mesh, name), logs in runs.items():
        ranks = MESHES[mesh]["data_parallel_size"]
        commands.append(fit(configs[name], logs, "gpt", ranks, *fsdp(4, **MESHES[mesh])))
    run_job(tmp_path / "job", commands, processes=4)
    for (_, name), logs in runs.items():
        assert_same_figures(logs / "gpt/version_0", alone(name))


@pytest.mark.slow
def test_a_loss_of_logits_has_the_gradient_of_whole_rows(configs, tmp_path):
    """A task of one's own, which takes the logits of all tokens."""
    more = ["--model.class_path=tests.extending.z_loss.ZLossModule", "--model.init_args.z_weight=0.1"]
    more += ["--allow_class_paths=tests"]
    run_job(tmp_path / "one", [fit(configs["plain"], tmp_path / "alone", "gpt", 1, *more)], processes=1)
    run_job(tmp_path / "two", [fit(configs["plain"], tmp_path / "divided", "gpt", 1, *fsdp(2), *more)])
    assert_same_figures(*(tmp_path / logs / "gpt/version_0" for logs in ("divided", "alone")))


@pytest.mark.slow
def test_options_change_no_loss(configs, alone, tmp_path):
    """Activation checkpointing, by which the exchange is made anew; in bfloat16 the losses are near."""
    options = {
        "checkpointing": "--model.init_args.activation_checkpointing=true",
        "bf16": "--trainer.precision=bf16-mixed",
    }
    run_job(
        tmp_path / "job",
        [fit(configs["rotary"], tmp_path / name, "gpt", 1, *fsdp(2), option) for name, option in options.items()],
    )
    expected = alone("rotary")
    assert_same_figures(tmp_path / "checkpointing/gpt/version_0", expected)
    assert losses(tmp_path / "bf16/gpt/version_0") == pytest.approx(losses(expected), abs=0.02)


@COMPILED
@pytest.mark.slow
def test_compiled_blocks_change_no_loss(configs, alone, tmp_path):
    command = fit(configs["rotary"], tmp_path, "gpt", 1, *fsdp(2), "--model.init_args.compile", "true")
    run_job(tmp_path / "job", [command])
    assert_same_figures(tmp_path / "gpt/version_0", alone("rotary"))


@pytest.mark.slow
def test_a_row_that_cannot_be_divided_is_refused(configs, tmp_path):
    with pytest.raises(AssertionError, match="rows of 15 tokens cannot be divided over 2 context-parallel ranks"):
        run_job(tmp_path / "job", [[*fit(configs["plain"], tmp_path, "gpt", 1, *fsdp(2)), "--data.seq_len=15"]])


def kept(network: GPT, ids: torch.Tensor) -> int:
    """The bytes that a forward pass keeps for the backward one, parameters apart."""
    storages = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = network(ids, labels=ids)
    for parameter in network.parameters():
        storages.pop(parameter.untyped_storage().data_ptr(), None)
    assert loss.requires_grad
    return sum(storages.values())


def test_a_rank_keeps_its_part_of_the_activations():
    network, ids = GPT(GPTConfig(64, 256, d_model=32, n_heads=4, n_layers=4)), torch.arange(256)[None] % 64
    whole = kept(network, ids)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=4)
    try:
        network.shard_tokens(TokenShards(dist.group.WORLD))
        assert kept(network, ids) == pytest.approx(whole / 4, rel=0.02)
    finally:
        dist.destroy_process_group()
