"""Training through the command line on one GPU: precisions, options and strategies give the losses of a CPU."""

import warnings
from pathlib import Path

import lightning as L
import pytest
import torch
import torch._dynamo

from src.checkpoint import read_checkpoint
from src.cli import training
from src.tasks import Task
from tests.distributed.jobs import HALFWAY, STEPS, fit, losses, run_job, write_config

pytestmark = pytest.mark.gpu

KINDS = ("gpt", "bert", "transformer")
GPU = ("--trainer.accelerator=gpu", "--trainer.devices=1")
EXACT = ("--float32_matmul_precision=highest",)
# of a run of 10 steps, what all its losses are within of those of a CPU in float32
PRECISIONS = {"32-true": 1e-3, "bf16-mixed": 0.05, "16-mixed": 0.05}
OPTIONS = {
    "fused": ["--model.init_args.optimizer.init_args.fused=true"],
    "compile": ["--model.init_args.compile=true"],
    "compile, activation_checkpointing": [
        "--model.init_args.compile=true",
        "--model.init_args.activation_checkpointing=true",
    ],
}


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    return {kind: write_config(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def on_cpu(configs, tmp_path_factory):
    """The runs of a CPU in float32, with all that they logged."""
    logs = tmp_path_factory.mktemp("cpu")
    for kind in KINDS:
        training.main(fit(configs[kind], logs, kind))
    return logs


@pytest.fixture
def train(configs, tmp_path):
    """Train a kind on the GPU; gives the folder of the run."""

    def command(kind: str, *more: str, callbacks=()) -> Path:
        training.main(fit(configs[kind], tmp_path, kind, 1, *GPU, *EXACT, *more), callbacks)
        return max((tmp_path / kind).glob("version_*"))

    return command


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_losses_are_those_of_a_cpu(train, on_cpu, kind, precision):
    """With accumulation, clipping, validation, samples and figures."""
    run, alone = train(kind, "--trainer.precision", precision), on_cpu / kind / "version_0"
    tolerance = PRECISIONS[precision]
    found = losses(run)
    assert len(found) == STEPS
    assert found[-1] < found[0]
    if precision == "16-mixed":  # whose scaler may leave out its first steps, by which it finds its scale
        assert found == pytest.approx(losses(alone), rel=0.3)
        return
    assert found == pytest.approx(losses(alone), abs=tolerance)
    assert losses(run, "val/loss") == pytest.approx(losses(alone, "val/loss"), abs=tolerance)
    assert losses(run, "train/gradient_norm") == pytest.approx(
        losses(alone, "train/gradient_norm"), rel=0.001 if precision == "32-true" else 0.1, abs=tolerance
    )


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_option_changes_no_loss(train, on_cpu, kind, option):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    found = losses(train(kind, "--trainer.precision=32-true", *OPTIONS[option]))
    assert found == pytest.approx(losses(on_cpu / kind / "version_0"), abs=1e-3)
    assert bool(torch._dynamo.utils.counters["stats"]["unique_graphs"]) == ("compile" in option)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_compiled_blocks_under_mixed_precision(train, on_cpu, precision):
    found = losses(train("gpt", "--trainer.precision", precision, *OPTIONS["compile"]))
    assert found == pytest.approx(losses(on_cpu / "gpt" / "version_0"), rel=0.3 if precision == "16-mixed" else 0.05)


class Scale(L.Callback):
    """Start the scaler where nothing overflows, and keep the norm of the gradients that each step is made with."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.precision_plugin.scaler = torch.amp.GradScaler("cuda", init_scale=1024.0)

    def on_before_zero_grad(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        if gradients:
            self.norms.append(torch.nn.utils.get_total_norm(gradients).item())


@pytest.mark.parametrize("fused", ["false", "true"])
def test_scaled_gradients_are_clipped_after_unscaling(train, on_cpu, fused):
    scale = Scale()
    more = ["--trainer.precision=16-mixed", f"--model.init_args.optimizer.init_args.fused={fused}"]
    run, alone = train("gpt", *more, callbacks=[scale]), on_cpu / "gpt" / "version_0"
    logged = losses(alone, "train/gradient_norm")
    assert losses(run, "train/gradient_norm") == pytest.approx(logged, rel=0.05)
    assert losses(run) == pytest.approx(losses(alone), abs=0.05)
    assert max(scale.norms) < 0.3 * 1.01  # gradient_clip_val
    assert max(logged) > 0.3


def test_a_run_goes_on_where_it_was(train):
    for precision in ("bf16-mixed", "16-mixed"):
        whole = train("gpt", "--trainer.precision", precision)
        halfway = whole / "checkpoints" / f"{HALFWAY}.ckpt"
        resumed = train("gpt", "--trainer.precision", precision, "--ckpt_path", str(halfway))
        assert losses(resumed) == pytest.approx(losses(whole)[HALFWAY:], abs=2e-3), precision


STRATEGIES = {
    "ddp": ["--config=configs/strategy/ddp.yaml"],
    "fsdp": ["--config=configs/strategy/fsdp.yaml"],
    "fsdp, evaluated first": ["--config=configs/strategy/fsdp.yaml", "--trainer.num_sanity_val_steps=1"],
    "fsdp, cpu_offload": [
        "--config=configs/strategy/fsdp.yaml",
        "--trainer.strategy.init_args.cpu_offload=true",
    ],
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_of_one_process_over_nccl(configs, on_cpu, tmp_path, strategy):
    """Through logs of the speed, validations and checkpoints; the last of which it goes on from."""
    commands = []
    for kind in KINDS:
        command = fit(configs[kind], tmp_path, kind, 1, *STRATEGIES[strategy], *GPU, *EXACT)
        commands.append(command)
    halfway = tmp_path / "gpt" / "version_0" / "checkpoints" / f"{HALFWAY}.ckpt"
    run_job(tmp_path / "job", [*commands, [*commands[0], "--ckpt_path", str(halfway)]], processes=1)
    for kind in KINDS:
        run, alone = tmp_path / kind / "version_0", on_cpu / kind / "version_0"
        for metric in ("train/loss", "train/gradient_norm", "val/loss"):
            assert losses(run, metric) == pytest.approx(losses(alone, metric), abs=1e-3), (kind, metric)
        assert all(speed > 0 for speed in losses(run, "throughput/tokens_per_second"))
        keys = [read_checkpoint(path / "checkpoints/last.ckpt")["state_dict"].keys() for path in (run, alone)]
        assert keys[0] == keys[1]
    resumed = losses(tmp_path / "gpt" / "version_1")
    assert resumed == pytest.approx(losses(tmp_path / "gpt" / "version_0")[HALFWAY:], abs=1e-4)


def test_tf32_is_used_for_float32_unless_it_is_refused(configs, tmp_path):
    for precision, more in (("high", ()), ("highest", EXACT)):
        training.main(fit(configs["gpt"], tmp_path, "gpt", 1, *GPU, "--trainer.max_steps=1", *more))
        assert torch.get_float32_matmul_precision() == precision


class Syncs(L.Callback):
    """Keep where the CPU waits for the GPU in one optimizer step that is not logged, its batches' loading included."""

    def __init__(self, step: int) -> None:
        self.step, self.places = step, []

    def _begin(self) -> None:
        self._catch = warnings.catch_warnings(record=True)
        self._found = self._catch.__enter__()
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")

    def _end(self) -> None:
        torch.cuda.set_sync_debug_mode("default")
        self._catch.__exit__(None, None, None)
        waits = [found for found in self._found if "synchronizing CUDA operation" in str(found.message)]
        self.places = [f"{Path(wait.filename).name}:{wait.lineno}" for wait in waits]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_) -> None:
        assert isinstance(pl_module, Task)
        if trainer.fit_loop._should_accumulate():
            return
        if trainer.global_step == self.step:
            self._begin()
        elif trainer.global_step == self.step + 1:
            self._end()


@pytest.mark.parametrize("fused", ["false", "true"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_waits_for_the_gpu_once_in_the_guard(train, kind, fused):
    syncs = Syncs(step=5)
    more = ["--trainer.log_every_n_steps=50", "--trainer.val_check_interval=1000", "--trainer.precision=bf16-mixed"]
    more += ["--checkpoint.every_n_train_steps=50", "--trainer.callbacks=[]"]
    train(kind, *more, f"--model.init_args.optimizer.init_args.fused={fused}", callbacks=[syncs])
    assert [place.partition(":")[0] for place in syncs.places] == ["guard.py"], syncs.places
