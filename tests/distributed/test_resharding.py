"""Sharded checkpoints: written while training goes on, and gone on from under any strategy and number of processes."""

import json
from pathlib import Path

import pytest
import torch

import src.cli
from src.atomic import checksums
from src.checkpoint import read_checkpoint, read_header
from tests.distributed.jobs import HALFWAY, STEPS, fit, losses, run_job, write_config

SCALES = "--model.groups.embeddings_lr_scale=0.5"  # embeddings and vectors are groups of their own
SHARDS = ["--trainer.strategy.init_args.save_distributed_checkpoint", "true", "--checkpoint.async_save", "true"]
RANKS = {"ddp": 2, "fsdp": 2, "tensor_parallel": 1, "pipeline": 1}  # how many processes share the rows of a batch


def spread(config: Path, logs: Path, name: str, *more: str) -> list[str]:
    strategy = ["--config", f"configs/strategy/{name}.yaml", "--trainer.devices", "2"]
    probe = {"class_path": "tests.distributed.probes.Gathered", "init_args": {"folder": str(logs / "gathered")}}
    probes = [f"--trainer.callbacks={json.dumps([probe])}" if name != "ddp" else "--trainer.callbacks=null"]
    return fit(config, logs, "gpt", RANKS[name], *strategy, *probes, "--allow_class_paths=tests", SCALES, *more)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_config("gpt", tmp_path_factory.mktemp("gpt"))


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """The losses of the uninterrupted run of one process."""
    logs = tmp_path_factory.mktemp("alone")
    src.cli.main(fit(config, logs, "gpt", 1, SCALES, "--trainer.callbacks=null"))
    return losses(logs / "gpt/version_0")


def halfway(logs: Path) -> Path:
    return logs / "gpt/version_0/checkpoints" / f"{HALFWAY}.ckpt"


@pytest.fixture(scope="module")
def saved(alone, config, tmp_path_factory):
    """Shards of two processes under FSDP, and those of a pipeline that has gone on from them."""
    logs = tmp_path_factory.mktemp("sharded")
    commands = [spread(config, logs / "fsdp", "fsdp", *SHARDS)]
    commands += [spread(config, logs / "pipeline", "pipeline", *SHARDS, "--ckpt_path", str(halfway(logs / "fsdp")))]
    run_job(logs / "job", commands)
    return logs


@pytest.mark.slow
def test_two_processes_go_on_from_the_shards_of_another_strategy(saved, alone, config, tmp_path):
    """Each from FSDP's, and FSDP from a pipeline's."""
    commands = [spread(config, tmp_path / "whole", "pipeline", *SHARDS)]
    for name in RANKS:
        shards = halfway(tmp_path / "whole" if name == "fsdp" else saved / "fsdp")
        commands.append(spread(config, tmp_path / name, name, "--ckpt_path", str(shards)))
    run_job(tmp_path / "job", commands)
    assert halfway(tmp_path / "whole").is_dir()
    for name in RANKS:
        assert losses(tmp_path / name / "gpt/version_0") == pytest.approx(alone[HALFWAY:], abs=1e-4), name


def test_a_pipeline_and_one_process_go_on_from_the_shards_of_fsdp(saved, alone, config, run, tmp_path):
    assert halfway(saved / "fsdp").is_dir()
    alone_again = [SCALES, "--trainer.strategy=auto", "--trainer.devices=1", "--trainer.callbacks=null"]
    more = [*alone_again, "--allow_class_paths=tests", "--ckpt_path", str(halfway(saved / "fsdp"))]
    status, _, err = run(*fit(config, tmp_path, "gpt", 1, *more))
    assert status == 0, err
    for logs in (tmp_path, saved / "pipeline"):
        assert losses(logs / "gpt/version_0") == pytest.approx(alone[HALFWAY:], abs=1e-4)


def test_shards_of_stages_are_a_whole_network(saved, run, tmp_path):
    last = saved / "pipeline/gpt/version_0/checkpoints/last.ckpt"
    assert run("consolidate", "--checkpoint", last, "--output", tmp_path / "one.ckpt")[0] == 0
    other = saved / "fsdp/gpt/version_0/checkpoints/last.ckpt"
    assert run("consolidate", "--checkpoint", other, "--output", tmp_path / "two.ckpt")[0] == 0
    one, two = (read_checkpoint(tmp_path / name)["state_dict"] for name in ("one.ckpt", "two.ckpt"))
    assert one.keys() == two.keys()
    shared = [name for name in one if "bias" not in name]  # of keys have no gradient, but what is rounded
    for name in shared:
        torch.testing.assert_close(one[name], two[name], atol=1e-3, rtol=0)


def test_what_is_written_meanwhile_is_complete(saved, alone):
    assert losses(saved / "fsdp/gpt/version_0") == pytest.approx(alone, abs=1e-4)
    for name, others in (("fsdp", {"5.ckpt"}), ("pipeline", set())):
        folder = saved / name / "gpt/version_0/checkpoints"
        assert {path.name for path in folder.iterdir()} == {"10.ckpt", "last.ckpt", *others}
        assert read_header(folder / "last.ckpt")["global_step"] == STEPS
        shard = "__0_0.distcp"  # of two names
        assert (folder / "last.ckpt" / shard).samefile(folder / "10.ckpt" / shard)


@pytest.mark.parametrize("name", ["fsdp", "pipeline"])
def test_the_first_process_alone_gathers_the_network(saved, name):
    """For samples and attention maps; the other one holds a tensor at most meanwhile."""
    first, second = (json.loads((saved / name / f"gathered/{rank}.json").read_text()) for rank in (0, 1))
    assert first["copy"] > 0
    assert second["copy"] == 0
    assert second["largest"] < first["copy"] / 4


@pytest.mark.slow
def test_a_kill_while_a_checkpoint_is_written_meanwhile_leaves_the_one_before(config, alone, tmp_path):
    folder = tmp_path / "logs/gpt/version_0/checkpoints"
    command = spread(config, tmp_path / "logs", "fsdp", *SHARDS, "--checkpoint.every_n_train_steps=2")
    kill = {"folder": str(folder), "rank": 1, "step": 4}
    kill = {"class_path": "tests.distributed.probes.KillWhileSaving", "init_args": kill}
    with pytest.raises(AssertionError, match="exit statuses"):
        run_job(tmp_path / "killed", [[*command, f"--trainer.callbacks={json.dumps([kill])}"]])
    assert (folder / "4.ckpt.part").is_dir()
    run_job(tmp_path / "resumed", [[*command, "--resume", "auto"]])
    assert losses(tmp_path / "logs/gpt/version_0") == pytest.approx(alone, abs=1e-4)
    assert "resuming from" in (tmp_path / "resumed/rank0.log").read_text()


def test_the_shards_of_others_run_no_code(saved, run, tmp_path):
    """What describes them is a pickle."""
    folder = saved / "fsdp/gpt/version_0/checkpoints/10.ckpt"
    metadata = (folder / ".metadata").read_bytes()
    sums = (folder / "checksums.json").read_text()
    try:
        evil = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
        (folder / ".metadata").write_bytes(evil)
        found = {name: of for name, of in checksums(folder).items() if name != "checksums.json"}
        (folder / "checksums.json").write_text(json.dumps(found))
        status, _, err = run("consolidate", "--checkpoint", folder, "--output", tmp_path / "one.ckpt")
    finally:
        (folder / ".metadata").write_bytes(metadata)
        (folder / "checksums.json").write_text(sums)
    assert status == 2
    assert "holds more than tensors and plain values" in err
    assert not (tmp_path / "ran").exists()
