"""Options of training that must take effect together: compiling with checkpointing, scaling with clipping."""

from functools import partial

import pytest
import torch
import torch._dynamo
import yaml

from src.models import GPTConfig
from src.optim import Constant
from src.tasks import GPTModule
from tests.distributed.jobs import losses

SCALED = {"class_path": "lightning.pytorch.plugins.MixedPrecision"}
SCALED["init_args"] = {"precision": "16-mixed", "device": "cpu"}


def saved_and_graphs(**options: bool) -> tuple[int, int, torch.Tensor]:
    """How many numbers a forward pass keeps for the backward one, how many graphs are compiled, and a gradient."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=64, max_seq_len=32, d_model=32, n_heads=2, n_layers=3, dropout=0.0)
    task = GPTModule(config, optimizer=torch.optim.AdamW, schedule=Constant(), **options)
    task.configure_model()
    saved, ids = [], torch.arange(64).view(2, 32)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t.numel()), t)[1], lambda t: t):
        loss = task.model.eval()(ids, labels=ids)
    loss.backward()
    gradient = task.model.blocks[0].feed_forward.up.weight.grad
    return sum(saved), torch._dynamo.utils.counters["stats"]["unique_graphs"], gradient


def test_blocks_are_compiled_once_with_and_without_checkpointing(monkeypatch):
    """Traced and differentiated as for any backend; to compile C++ would take most of a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    plain, no_graphs, expected = saved_and_graphs()
    compiled, graphs, one = saved_and_graphs(compile=True)
    both, graphs_of_both, two = saved_and_graphs(compile=True, activation_checkpointing=True)
    assert (no_graphs, graphs, graphs_of_both) == (0, 1, 1)
    assert both < compiled / 4
    assert both < plain / 4
    for gradient in (one, two):
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_scaled_gradients_are_clipped_after_unscaling(run, config, tmp_path, algorithm):
    """In float16, whose losses are scaled up so that no gradient is too small; by fused optimizers too."""
    settings = yaml.safe_load(config.read_text())
    settings["trainer"] |= {"max_steps": 4, "gradient_clip_val": 0.01, "gradient_clip_algorithm": algorithm}
    settings["trainer"] |= {"log_every_n_steps": 1, "plugins": [SCALED], "precision": None}
    norms, weights = [], []
    for version, fused in enumerate((False, True)):
        arguments = {"lr": 0.5, "fused": fused}
        settings["model"]["init_args"]["optimizer"] = {"class_path": "SGD", "init_args": arguments}
        config.write_text(yaml.safe_dump(settings))
        status, _, err = run("fit", "--config", config)
        assert status == 0, err
        folder = tmp_path / f"logs/tiny/version_{version}"
        norms.append(losses(folder, "train/gradient_norm"))
        weights.append(torch.load(folder / "checkpoints/last.ckpt")["state_dict"])
    assert len(norms[0]) == 4
    assert max(norms[0]) < 100  # not those of losses that are 65,536 times as large
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, atol=1e-5, rtol=1e-4)


def test_a_run_goes_on_with_other_rates_but_the_same_groups(run, config, tmp_path):
    cut = ("fit", "--config", config, "--trainer.max_steps", 2)
    assert run(*cut, "--model.groups.head_lr_scale", 2)[0] == 0
    going_on = ("--ckpt_path", tmp_path / "logs/tiny/version_0/checkpoints/last.ckpt", "--trainer.max_steps", 4)
    assert run("fit", "--config", config, *going_on, "--model.groups.matrices_lr_scale", 2)[0] == 0
    status, _, err = run("fit", "--config", config, *going_on, "--model.groups.vectors_lr_scale", 2)
    assert (status, len(err.strip().splitlines())) == (2, 1)
    assert "set model.groups as it was" in err
