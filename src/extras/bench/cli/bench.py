"""bench: how fast a configuration trains, or decodes, beside the machine's limit and beside other programs."""

import shlex
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import SaveConfigCallback

from src.callbacks import EndWithValidation, Predictions, Report
from src.checkpoint import read_header
from src.cli.layers import layer_of
from src.cli.messages import values_of
from src.cli.parser import VerbParser, positive
from src.cli.quiet import quieten
from src.cli.training import TrainingCLI
from src.errors import InputError
from src.extras.bench.benchmark import Machine, Record, check_output, show, write
from src.extras.bench.decoding_bench import DecodingBench
from src.extras.bench.peers import External
from src.extras.bench.profiler import StepProfiler, profile_loggers
from src.extras.bench.training_bench import TrainingBench

# of a run's callbacks, what writes at its start and end
LEFT_OUT = (Checkpoint, EndWithValidation, Predictions, Report, SaveConfigCallback)
TRANSFORMERS = "transformers"


def parser() -> VerbParser:
    """The options of `bench` that are not those of `fit`."""
    options = VerbParser(prog="python -m src bench", description=f"{__doc__} Any option of fit may follow.")
    options.add_argument(
        "--against",
        metavar="PROGRAM",
        help=f"{TRANSFORMERS}, or a shell script that prints NUMBER tokens/s (sentences/s with --decode); in turns",
    )
    options.add_argument(
        "--decode", action="store_true", help="measure generation, or beam search, instead of training"
    )
    options.add_argument("--rounds", type=positive, default=5, metavar="N", help="in turns (%(default)s)")
    options.add_argument(
        "--steps", type=positive, metavar="N", help="optimizer steps a round (20); batches, with --decode (5)"
    )
    options.add_argument(
        "--warmup", type=positive, default=5, metavar="N", help="steps before each round (%(default)s)"
    )
    options.add_argument("--output", type=Path, metavar="DIR", help="where to write bench.json and bench.md")
    return options


class BenchCLI(TrainingCLI):
    """A run of `fit` that is measured, and leaves nothing.

    Args:
        options: of `bench`.
        arguments: those of `fit`.
        folder: for what the run writes.
    """

    def __init__(self, options: Namespace, arguments: list[str], folder: str) -> None:
        self.options, self.profiler = options, StepProfiler()
        self.peers = (TRANSFORMERS, "accelerate") if options.against == TRANSFORMERS else ()
        unit = "sentences/s" if options.decode else "tokens/s"
        # before anything is prepared: a file that is not there
        self.external = External(Path(options.against), unit) if options.against and not self.peers else None
        steps = (1 + options.rounds) * (options.warmup + options.steps)
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
        """The trainer of `fit`, without what writes at its start and end."""
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
        device = self.trainer.strategy.root_device
        machine = Machine.measured(device, self.peers)
        self.record = Record(shlex.join(["python", "-m", "src", "bench", *self.options.given]), machine, {})
        measure = self._decode if self.options.decode else self._train
        measure()

    def _settings(self, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
        self.record.parameters = self.model.n_parameters()
        shape = ", ".join(
            f"{name} {' x '.join(map(str, tensor.shape))}" for name, tensor in batch.items() if tensor.dim()
        )
        return {
            "network": f"{type(self.model.model).__name__}, {self.record.parameters:,} parameters",
            "first batch": shape,
            "precision": f"{self.trainer.precision} on {self.trainer.strategy.root_device.type}",
        }

    def _train(self) -> None:
        options = self.options

        def peer(trainer: L.Trainer, task: Any, batch: Any) -> Any:
            if self.external is not None:
                return self.external
            from src.extras.bench.huggingface import HuggingFaceTraining

            return HuggingFaceTraining(trainer, task, batch, options.warmup, options.steps)

        bench = TrainingBench(
            options.warmup,
            options.steps,
            peer if options.against else None,
            self.profiler,
            self.record.machine.peaks,
        )
        self.trainer.callbacks.append(bench)  # type: ignore[attr-defined]
        self.trainer.fit(self.model, self.datamodule)
        record = self.record
        record.settings = {
            **self._settings(bench.first_batch),
            "steps a round": f"{options.steps}, after {options.warmup} that do not count",
        }
        record.steps, record.own, record.theirs = bench.profiled, bench.own, bench.theirs
        record.against = bench.peer.about if bench.peer else {}

    def _decode(self) -> None:
        def peer(task: Any) -> Any:
            if self.external is not None:
                return self.external
            from src.extras.bench.huggingface import HuggingFaceDecoding

            return HuggingFaceDecoding(task)

        bench = DecodingBench(self.options.steps, self.options.rounds, peer if self.options.against else None)
        self.trainer.callbacks.append(bench)  # type: ignore[attr-defined]
        self.trainer.fit(self.model, self.datamodule)
        record = self.record
        weights = self.model.pretrained or "none but the first random ones: --ckpt_path names a checkpoint"
        search = bench.work[0][1]
        record.unit = "sentences/s"
        record.settings = {
            **self._settings(bench.work[0][0]),
            "weights": weights,
            "search": f"beam {search.beam}, length penalty {search.alpha:g}, {len(bench.work)} batches a round",
        }
        record.decoded, record.own, record.theirs = bench.decoded, bench.own, bench.theirs
        record.against = bench.peer.about if bench.peer else {}


def measure(arguments: list[str]) -> Record:
    """Run a benchmark by its command line, the verb left out.

    Raises:
        InputError: a bad option or configuration, or a program to compare with that cannot be.
    """
    options, rest = parser().parse_known_args(arguments)
    options.given = arguments
    options.steps = options.steps or (5 if options.decode else 20)
    if checkpoints := values_of(("--ckpt_path",), rest):
        # its configuration is the lowest layer, and its weights are where the run starts
        layer = yaml.safe_dump(layer_of(read_header(checkpoints[-1])))
        rest = ["--config", layer, *rest, "--ckpt_path", "null", "--model.pretrained", checkpoints[-1]]
    with tempfile.TemporaryDirectory() as folder:
        return BenchCLI(options, rest, folder).record


def main(arguments: list[str]) -> None:
    """Measure, print a table, and write it where ``--output`` says."""
    quieten()
    folder = parser().parse_known_args(arguments[1:])[0].output
    if folder is not None:
        check_output(folder)
    record = measure(arguments[1:])
    show(record)
    if folder is not None:
        write(record, folder)
