"""A run of `fit` that is measured."""

import shlex
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import SaveConfigCallback

from src.callbacks import EndWithValidation, Predictions, RunSummary
from src.checkpoint import read_header
from src.cli.config_overrides import config_of
from src.cli.messages import values_of
from src.cli.training import TrainingCLI
from src.errors import InputError
from src.extras.bench.benchmark import Machine, Record
from src.extras.bench.cli import Options
from src.extras.bench.decoding_bench import DecodingBench
from src.extras.bench.huggingface import HuggingFaceDecoding, HuggingFaceTraining
from src.extras.bench.peers import External
from src.extras.bench.profiler import StepProfiler, profile_loggers
from src.extras.bench.training_bench import TrainingBench

# of a run's callbacks, what writes at its start and end
LEFT_OUT = (Checkpoint, EndWithValidation, Predictions, RunSummary, SaveConfigCallback)
TRANSFORMERS = "transformers"


class BenchCLI(TrainingCLI):
    """A run of `fit` that is measured, and leaves nothing.

    Args:
        options: of `bench`.
        arguments: those of `fit`.
        folder: for what the run writes.
    """

    def __init__(self, options: Options, arguments: list[str], folder: str) -> None:
        self.options, self.profiler = options, StepProfiler()
        self.steps = options.steps or (5 if options.decode else 20)
        self.peers = (TRANSFORMERS, "accelerate") if options.against == TRANSFORMERS else ()
        self.unit = "sentences/s" if options.decode else "tokens/s"
        # before anything is prepared: a file that is not there
        self.external = External(Path(options.against), self.unit) if options.against and not self.peers else None
        steps = (1 + options.rounds) * (options.warmup + self.steps)
        if options.decode and not values_of(("--trainer.precision",), arguments):
            arguments = [*arguments, "--trainer.precision", "32-true"]  # as the verbs that decode
        first = ["--trainer.devices", "1"]
        last = {
            "max_steps": 1 if options.decode else steps,
            "max_epochs": -1,
            "limit_val_batches": 0,
            "limit_train_batches": 0 if options.decode else 1.0,
            "fast_dev_run": "false",
            "default_root_dir": folder,
        }
        fixed = [text for name, value in last.items() for text in (f"--trainer.{name}", str(value))]
        super().__init__("fit", ["fit", *first, *arguments, *fixed])

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Make the trainer of `fit`, without what writes at its start and end."""
        made = super().instantiate_trainer(profiler=self.profiler, **kwargs)
        if made.world_size > 1:
            raise InputError(f"bench measures one device, not {made.world_size}: set --trainer.devices 1")
        kept = [callback for callback in made.callbacks if not isinstance(callback, LEFT_OUT)]  # type: ignore[attr-defined]
        made.callbacks = kept  # type: ignore[attr-defined]
        profile_loggers(made, self.profiler)
        return made

    def _run_subcommand(self, subcommand: str) -> None:
        """Measure instead of fit; gives ``self.record``."""
        self.before_fit()
        options, device = self.options, self.trainer.strategy.root_device
        command = shlex.join(["python", "-m", "src", *sys.argv[1:]])
        record = self.record = Record(command, Machine.measured(device, self.peers), self.unit)
        bench: DecodingBench | TrainingBench
        if options.decode:
            bench = DecodingBench(record, self.steps, options.rounds, self._make_peer(HuggingFaceDecoding))
        else:
            peer = partial(HuggingFaceTraining, warmup=options.warmup, steps=self.steps)
            bench = TrainingBench(record, options.warmup, self.steps, self._make_peer(peer), self.profiler)
        self.trainer.callbacks.append(bench)  # type: ignore[attr-defined]
        self.trainer.fit(self.model, self.datamodule)
        record.parameters = sum(p.numel() for p in self.model.meta_model().parameters())
        shapes = {
            name: " x ".join(map(str, tensor.shape)) for name, tensor in bench.first_batch.items() if tensor.dim()
        }
        record.settings = {
            "network": f"{type(self.model.model).__name__}, {record.parameters:,} parameters",
            "first batch": ", ".join(f"{name} {shape}" for name, shape in shapes.items()),
            "precision": f"{self.trainer.precision} on {device.type}",
            **bench.settings,
        }

    def _make_peer(self, transformers: Callable[..., Any]) -> Callable[..., Any] | None:
        """Choose what makes the other program, once the run is set up; None where there is none."""
        if self.external is not None:
            return lambda *_: self.external
        return transformers if self.options.against else None


def measure(*fit: str, options: Options) -> Record:
    """Run a benchmark: its options, and those of fit."""
    arguments = list(fit)
    if checkpoints := values_of(("--ckpt_path",), arguments):
        # its configuration lies under the others, and its weights are where the run starts
        config = yaml.safe_dump(config_of(read_header(checkpoints[-1])))
        arguments = ["--config", config, *arguments, "--ckpt_path", "null", "--model.pretrained", checkpoints[-1]]
    with tempfile.TemporaryDirectory() as folder:
        return BenchCLI(options, arguments, folder).record
