"""What the ranks of a strategy do each for itself, and what together: random numbers, and figures of speed."""

from itertools import combinations

import pytest
import torch
import yaml

from tests.distributed.jobs import fit, losses, run_job, write_config
from tests.reliability.runs import assert_same, final

# how many processes share the rows of a batch
STRATEGIES = {"ddp": 2, "fsdp": 2, "context": 1, "tensor_parallel": 1, "pipeline": 1}
CONTEXT = ["--trainer.strategy.init_args.context_parallel_size=2"]  # of FSDP
STEPS, HALFWAY = 4, 2


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """Runs of each strategy on two processes with half of everything dropped; under DDP once more, and resumed."""
    root = tmp_path_factory.mktemp("ranks")
    config = write_config("gpt", root)
    settings = yaml.safe_load(config.read_text())
    settings["model"]["init_args"]["config"] |= {"dropout": 0.5, "attention_dropout": 0.5}
    settings["trainer"] |= {"max_steps": STEPS, "val_check_interval": 2 * STEPS, "callbacks": []}
    settings["checkpoint"]["every_n_train_steps"] = HALFWAY
    commands = []
    for name, strategy in {**{name: name for name in STRATEGIES}, "again": "ddp", "resumed": "ddp"}.items():
        probes = [("Dropped", {"folder": str(root / name)}), ("Clock", {})]
        probes = [{"class_path": f"tests.distributed.probes.{kind}", "init_args": args} for kind, args in probes]
        settings["trainer"]["callbacks"] = probes
        path = root / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings))
        file, options = ("fsdp", CONTEXT) if strategy == "context" else (strategy, [])
        more = ["--config", f"configs/strategy/{file}.yaml", "--trainer.devices", "2", *options]
        more += ["--allow_class_paths", "tests"]
        if name == "resumed":
            more += ["--ckpt_path", str(root / f"logs/ddp/gpt/version_0/checkpoints/{HALFWAY}.ckpt")]
        commands.append(fit(path, root / "logs" / name, "gpt", STRATEGIES[strategy], *more))
    run_job(root / "job", commands)
    return root


def of_both(root, name, what="dropped"):
    return [torch.load(root / name / f"{rank}.pt")[what] for rank in (0, 1)]


def agreement(a, b):
    return (a == b).float().mean().item()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "context"])
def test_ranks_with_tokens_of_their_own_drop_apart(jobs, strategy):
    mine, others = of_both(jobs, strategy)
    assert mine.keys() == others.keys()
    for name in mine:
        assert agreement(mine[name], others[name]) == pytest.approx(0.5, abs=0.05), name


def test_they_begin_with_the_same_weights(jobs):
    assert_same(*of_both(jobs, "ddp", "weights"))


def test_tensor_parallel_ranks_drop_alike_what_is_whole_and_apart_what_is_cut(jobs):
    mine, others = of_both(jobs, "tensor_parallel")
    for name in mine:
        if name.endswith("attention"):  # by heads
            assert agreement(mine[name], others[name]) == pytest.approx(0.5, abs=0.05), name
        else:
            assert torch.equal(mine[name], others[name]), name


def test_stages_of_a_pipeline_drop_apart(jobs):
    """Each has other layers, whose dropouts have one shape."""
    mine, others = of_both(jobs, "pipeline")
    mine, others = ([found[name] for name in found if name.endswith(".attention")] for found in (mine, others))
    assert mine
    for a, b in ((a, b) for a in mine for b in others):
        assert agreement(a, b) == pytest.approx(0.5, abs=0.05)


def test_layers_and_steps_drop_apart(jobs):
    """A stream that is set back would repeat itself."""
    for strategy in ("ddp", "tensor_parallel"):
        found = [step for name, steps in of_both(jobs, strategy)[1].items() if "attention" in name for step in steps]
        for a, b in combinations(found, 2):
            assert agreement(a, b) == pytest.approx(0.5, abs=0.1)


def test_the_same_seed_is_the_same_run_on_two_processes_too(jobs):
    assert_same(of_both(jobs, "again"), of_both(jobs, "ddp"))
    ends = [final(jobs / f"logs/{name}/gpt/version_0") for name in ("again", "ddp")]
    assert_same(*ends)


def test_a_resumed_run_draws_on_as_the_uninterrupted_one(jobs):
    ends = [final(jobs / f"logs/{name}/gpt/version_0") for name in ("resumed", "ddp")]
    assert_same(*ends)
    for resumed, whole in zip(of_both(jobs, "resumed"), of_both(jobs, "ddp"), strict=True):
        for name, dropped in resumed.items():
            assert torch.equal(dropped, whole[name][-len(dropped) :]), name


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_tokens_that_several_ranks_read_count_once(jobs, strategy):
    """8 rows of 16 tokens in each of 2 batches a second; the work is shared by 2 processes under each."""
    run = jobs / f"logs/{strategy}/gpt/version_0"
    assert losses(run, "throughput/tokens_per_second") == [2 * 8 * 16] * STEPS
    utilisations = losses(jobs / "logs/ddp/gpt/version_0", "throughput/hardware_utilisation")
    assert losses(run, "throughput/hardware_utilisation") == pytest.approx(utilisations)
