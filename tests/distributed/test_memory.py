"""What each process holds under each strategy: bytes, summed over the local tensors."""

import json

import pytest

from tests.distributed.construction import construction
from tests.distributed.jobs import fit, run_job, write_config

MIB = 2**20
# of what one process holds: parameters, gradients, optimizer state; ZeRO's state has a copy of its parameters more
EXPECTED = {
    "ddp": (1, 1, 1),
    "fsdp": (0.5, 0.5, 0.5),
    "zero1": (1, None, 0.75),
    "zero2": (1, 0.5, 0.75),
    "zero3": (0.5, 0.5, 0.75),
    "tensor_parallel": (0.5, 0.5, 0.5),
    "pipeline": (0.5, 0.5, 0.5),
}


@pytest.mark.slow
def test_the_memory_table(tmp_path):
    """A GPT of 32M parameters. With `-s` it prints the table of `docs/strategies.md`."""
    config = write_config("gpt", tmp_path)
    shape = {"d_model": 512, "n_heads": 8, "n_layers": 10}
    more = [f"--model.init_args.config.{name}={value}" for name, value in shape.items()]
    more += ["--data.tokenizer=bpe", "--trainer.max_steps=2", "--trainer.accumulate_grad_batches=1"]
    more += ["--trainer.limit_val_batches=0", "--trainer.log_every_n_steps=1"]
    rows = {}
    for name in EXPECTED:
        probe = {"class_path": "tests.distributed.probes.Bytes", "init_args": {"folder": str(tmp_path / name)}}
        probing = [f"--trainer.callbacks={json.dumps([probe])}", "--allow_class_paths=tests"]
        spread = ["--config", f"configs/strategy/{name}.yaml", "--trainer.devices", "2"]
        run_job(tmp_path / "job" / name, [fit(config, tmp_path / "logs" / name, "gpt", 1, *spread, *more, *probing)])
        held = [json.loads((tmp_path / name / f"{rank}.json").read_text()) for rank in (0, 1)]
        rows[name] = [max(h[what] for h in held) for what in ("parameters", "gradients", "optimizer")]
    for name, found in rows.items():
        print("|", name, *(f"| {n / MIB:.1f}" for n in found), "|")
    whole = rows["ddp"]
    assert whole[0] > 90 * MIB
    for name, shares in EXPECTED.items():
        for found, all_of_it, share in zip(rows[name], whole, shares, strict=True):
            if share is not None:
                assert found / all_of_it == pytest.approx(share, abs=0.06), (name, rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsdp", "tensor_parallel", "pipeline"])
def test_to_build_a_network_takes_the_shard_and_a_block(tmp_path, name):
    """A GPT of 101M parameters, none of which is in memory as a whole."""
    found = construction(name, tmp_path, {"d_model": 1024, "n_heads": 16, "n_layers": 8})
    assert found["shard"] > 190 * MIB
    assert found["peak"] < found["shard"] + found["block"], found
