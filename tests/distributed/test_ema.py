"""Weight averaging under ZeRO 1 and 2, whose checkpoints are DeepSpeed's own."""

import pytest
import torch

from tests.distributed.jobs import HALFWAY, fit, losses, run_job, write_config
from tests.reliability.runs import assert_same

pytest.importorskip("deepspeed")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One process; ZeRO 1 and 2 on two, evaluated from their checkpoints, and one of them resumed from halfway."""
    root = tmp_path_factory.mktemp("ema")
    config, average = write_config("gpt", root), root / "ema.yaml"
    average.write_text("trainer: {callbacks: [{class_path: EMA, init_args: {decay: 0.8}}]}")
    run_job(root / "alone", [fit(config, root / "alone", "gpt", 1, "--config", str(average))], processes=1)
    commands = []
    for name in ("zero1", "zero2"):
        zero = ["--config", str(average), "--config", f"configs/strategy/{name}.yaml", "--trainer.devices", "2"]
        checkpoints = root / name / "gpt/version_0/checkpoints"
        commands.append(fit(config, root / name, "gpt", 2, *zero))
        commands.append(["validate", "--ckpt_path", str(checkpoints / "last.ckpt")])
    commands.append(["fit", "--ckpt_path", str(checkpoints / f"{HALFWAY}.ckpt")])
    run_job(root / "job", commands)
    return root


@pytest.fixture
def consolidated(runs, run, tmp_path):
    def read(name, version):
        folder, file = runs / name / f"gpt/version_{version}/checkpoints/last.ckpt", tmp_path / f"{name}_{version}.ckpt"
        status, _, err = run("consolidate", "--checkpoint", folder, "--output", file)
        assert status == 0, err
        return torch.load(file)

    return read


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero1", "zero2"])
def test_the_average_is_that_of_one_process(runs, consolidated, name):
    alone, ours = torch.load(runs / "alone/gpt/version_0/checkpoints/last.ckpt"), consolidated(name, 0)
    for part in ("state_dict", "plain_weights"):
        torch.testing.assert_close(ours[part], alone[part], atol=1e-4, rtol=1e-3)
    weight = "model.token_embedding.weight"
    assert (ours["state_dict"][weight] - ours["plain_weights"][weight]).abs().max() > 1e-4
    expected = losses(runs / "alone/gpt/version_0", "val/loss")
    for version in (0, 1):  # of the run, and of its checkpoint
        assert losses(runs / name / f"gpt/version_{version}", "val/loss")[-1] == pytest.approx(expected[-1], abs=1e-5)


@pytest.mark.slow
def test_a_resumed_average_goes_on_exactly(consolidated):
    whole, resumed = consolidated("zero2", 0), consolidated("zero2", 2)
    assert resumed["global_step"] == whole["global_step"]
    for part in ("state_dict", "plain_weights"):
        assert_same(resumed[part], whole[part])
