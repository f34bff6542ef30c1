"""A pipeline whose stages are each cut by FSDP and tensor parallelism trains as one process does."""

import json

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.plugins import Precision
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from src.distributed import PipelineStrategy
from src.distributed.collectives import local_part
from src.errors import InputError
from src.models import GPT, GPTConfig
from tests.distributed.jobs import STEPS, fit, losses, run_job, write_config

KINDS = ("gpt", "bert", "transformer")
# of pipelines of two processes: how many processes share the rows of a batch, and options
MESHES = {
    "fsdp": (2, {}),
    "tensor_parallel": (1, {"tensor_parallel_size": 2}),
}
# of GPT alone
FURTHER = {
    "ddp": {"replicate_size": 2},
    "resharded": {"reshard_after_forward": "true"},
    "GPipe": {"schedule": "GPipe", "reshard_after_forward": "true"},
    "interleaved": {"schedule": "Interleaved1F1B", "stages_per_process": 2},
    "interleaved and resharded": {
        "schedule": "Interleaved1F1B",
        "stages_per_process": 2,
        "reshard_after_forward": "true",
    },
}


def spread(*more, **options):
    options = [f"--trainer.strategy.init_args.{name}={value}" for name, value in options.items()]
    return ["--config", "configs/strategy/pipeline.yaml", "--trainer.devices=4", *options, *more]


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    return {kind: write_config(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def alone(configs, tmp_path_factory):
    logs = tmp_path_factory.mktemp("alone")
    run_job(logs / "job", [fit(configs[kind], logs, kind) for kind in KINDS], processes=1)
    return logs


def hold_to(expected, found, kind, metrics=("train/loss", "train/gradient_norm", "val/loss")):
    for metric in metrics:
        wanted = losses(expected / kind / "version_0", metric)
        assert wanted
        assert losses(found / kind / "version_0", metric) == pytest.approx(wanted, abs=1e-4), (found, metric)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_the_losses_are_those_of_one_process(configs, alone, tmp_path, mesh):
    """With accumulation, clipping, validation, and a matrix that the first and the last stage share."""
    ranks, options = MESHES[mesh]
    more = spread(pipeline_size=2, **options)
    commands = [fit(configs[kind], tmp_path, kind, ranks, *more) for kind in KINDS]
    run_job(tmp_path / "job", commands, processes=4, timeout=1800)
    for kind in KINDS:
        assert len(losses(tmp_path / kind / "version_0")) == STEPS
        hold_to(alone, tmp_path, kind)
    for metric in ("val/bleu", "val/token_accuracy"):
        hold_to(alone, tmp_path, "transformer", [metric])


@pytest.mark.slow
def test_every_schedule_with_shards(configs, tmp_path):
    """Gradients are reduced once, behind the last micro-batch of all stages of a process."""
    more = ["--model.init_args.config.n_layers=4", "--trainer.max_steps=4", "--trainer.val_check_interval=8"]
    more += ["--trainer.callbacks=null"]
    run_job(tmp_path / "job1", [fit(configs["gpt"], tmp_path / "alone", "gpt", 1, *more)], processes=1)
    commands = [
        fit(configs["gpt"], tmp_path / name, "gpt", 2, *spread(*more, pipeline_size=2, **options))
        for name, options in FURTHER.items()
    ]
    run_job(tmp_path / "job4", commands, processes=4, timeout=1800)
    for name in FURTHER:
        hold_to(tmp_path / "alone", tmp_path / name, "gpt")


@pytest.mark.slow
def test_whole_matrices_are_orthogonalised(configs, tmp_path):
    """Muon gathers the matrices of each stage over the processes of that stage."""
    more = ["--model.init_args.optimizer=Muon", "--trainer.callbacks=null", "--trainer.limit_val_batches=0"]
    run_job(tmp_path / "job1", [fit(configs["gpt"], tmp_path / "alone", "gpt", 1, *more)], processes=1)
    commands = [
        fit(configs["gpt"], tmp_path / name, "gpt", ranks, *spread(*more, pipeline_size=2, **options))
        for name, (ranks, options) in MESHES.items()
    ]
    run_job(tmp_path / "job4", commands, processes=4, timeout=1800)
    for name in MESHES:
        hold_to(tmp_path / "alone", tmp_path / name, "gpt", ["train/loss"])


@pytest.mark.slow
def test_what_is_whole_on_tensor_parallel_ranks_is_dropped_alike(configs, tmp_path):
    """Two stages of two ranks: heads are dropped apart, and so is what another stage has."""
    probe = {"class_path": "tests.distributed.probes.Dropped", "init_args": {"folder": str(tmp_path / "dropped")}}
    more = [f"--model.init_args.config.{name}=0.5" for name in ("dropout", "attention_dropout")]
    more += [f"--trainer.callbacks={json.dumps([probe])}", "--allow_class_paths=tests", "--trainer.max_steps=3"]
    command = fit(configs["gpt"], tmp_path, "gpt", 1, *spread(*more, tensor_parallel_size=2))
    run_job(tmp_path / "job", [command], processes=4, timeout=900)
    ranks = [torch.load(tmp_path / "dropped" / f"{rank}.pt")["dropped"] for rank in range(4)]
    agreement = lambda a, b: (a == b).float().mean().item()  # noqa: E731
    for mine, others in (ranks[:2], ranks[2:]):
        for name in mine:
            expected = pytest.approx(0.5, abs=0.05) if name.endswith("attention") else 1
            assert agreement(mine[name], others[name]) == expected, name
    apart = agreement(ranks[0]["blocks.0.dropout"], ranks[2]["blocks.1.dropout"])
    assert apart == pytest.approx(0.5, abs=0.05)


# ---- in one process, as each of many in turn


def network():
    return GPT(GPTConfig(40, max_seq_len=16, d_model=16, n_heads=2, n_layers=4))


def cut(rank, world_size, **options):
    """How many elements a rank holds of each parameter of a network, by name."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
    with torch.device("meta"):
        strategy = PipelineStrategy(**options)
        strategy.precision_plugin = Precision()
        sizes = strategy.sizes(world_size)
        strategy._device_mesh = init_device_mesh("cpu", tuple(sizes.values()), mesh_dim_names=tuple(sizes))
        model = network()
        strategy._shard(model)
    dist.destroy_process_group()
    return {name: local_part(p).numel() for name, p in model.named_parameters()}


@pytest.mark.parametrize("replicate_size", [1, 2])
def test_the_ranks_hold_the_network_between_them(replicate_size):
    """2 stages x 2 data-parallel x 2 tensor-parallel: each shard once, or once a group that has all shards."""
    found = [cut(rank, 8, pipeline_size=2, tensor_parallel_size=2, replicate_size=replicate_size) for rank in range(8)]
    with torch.device("meta"):
        whole = {name: p.numel() for name, p in network().named_parameters()}
    assert set().union(*found) == set(whole)
    cut_by_rank = ("qkv.weight", "qkv.bias", "out.weight", "up.weight", "up.bias", "down.weight", "embedding.weight")
    for name, size in whole.items():
        copies = replicate_size
        copies *= 1 if name.endswith(cut_by_rank) and "position" not in name else 2  # a norm is on each of both ranks
        copies *= 2 if name == "token_embedding.weight" else 1  # which the output layer is tied to
        assert sum(held.get(name, 0) for held in found) == copies * size, name
    for held in found:
        assert len({name for name in held if name.startswith("blocks.")}) < len(whole) / 2


@pytest.mark.parametrize(
    ("options", "processes", "sizes"),
    [
        ({}, 8, (8, 1, 1)),
        ({"pipeline_size": 2}, 8, (2, 4, 1)),
        ({"tensor_parallel_size": 2}, 8, (4, 1, 2)),
        ({"data_parallel_size": 2, "tensor_parallel_size": 2}, 8, (2, 2, 2)),
        ({"pipeline_size": 2, "tensor_parallel_size": 2, "replicate_size": 2}, 16, (2, 4, 2)),
    ],
)
def test_what_is_not_said_follows_from_the_rest(options, processes, sizes):
    found = PipelineStrategy(**options).sizes(processes)
    assert tuple(found) == ("pipeline", "data_parallel", "tensor_parallel")
    assert tuple(found.values()) == sizes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pipeline_size": 3}, "pipeline_size 3 x data_parallel_size 2 x tensor_parallel_size 1 is not the number of"),
        ({"pipeline_size": 4, "data_parallel_size": 4}, "processes, 8: change one of them"),
        ({"tensor_parallel_size": 3}, "pipeline_size 2 x data_parallel_size 1 x tensor_parallel_size 3"),
        ({"pipeline_size": 0}, "pipeline_size is 0: it must be at least 1"),
        ({"pipeline_size": 2, "replicate_size": 3}, "replicate_size is 3: it must divide the 4 data-parallel"),
    ],
)
def test_sizes_that_do_not_multiply_are_refused(options, said):
    with pytest.raises(InputError) as refused:
        PipelineStrategy(**options).sizes(8)
    assert said in str(refused.value)
