"""fit, validate, test and predict: a LightningCLI over this project's tasks and data."""

import logging
import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from jsonargparse import ArgumentError
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import src.callbacks
import src.data
import src.distributed
import src.optim
import src.tasks
from src.callbacks import (
    EMA,
    Dashboard,
    EndWithValidation,
    HParams,
    Predictions,
    ProgressBar,
    Report,
    Throughput,
    print_results,
)
from src.checkpoint import read_header
from src.cli import classes
from src.cli.messages import one_line, values_of
from src.cli.runs import run_folder
from src.errors import InputError
from src.hardware import native_precision

# in a checkpoint's configuration, what belongs to the verb that wrote it and not to the run
OF_THE_VERB = ("ckpt_path", "weights_only", "verbose", "return_predictions")


class SaveConfig(SaveConfigCallback):
    """The resolved configuration in the run's folder, and in each of its checkpoints."""

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self.parser.dump(self.config, skip_unset=False)

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """The tokenizers, beside the configuration: another run can name them."""
        assert isinstance(pl_module, src.tasks.Task)
        for name in ("tokenizer", "source_tokenizer"):
            if hasattr(pl_module.data, name):
                getattr(pl_module.data, name).save(str(Path(trainer.default_root_dir) / f"{name}.json"))


class TrainingCLI(LightningCLI):
    """Model, data, trainer and callbacks from layers of YAML and the command line.

    Args:
        verb: the one subcommand to build a parser for; one parser has some 150 options and is slow to build.
        arguments: the command line, the verb first.
        checkpoint_config: the configuration inside the checkpoint that the run starts from.
    """

    def __init__(self, verb: str, arguments: list[str], checkpoint_config: dict[str, Any] | None = None) -> None:
        self.verb = verb
        self.checkpoint_config = checkpoint_config
        self.arguments = arguments
        classes.install()
        strict = {"allow_abbrev": False, "exit_on_error": False}
        super().__init__(
            model_class=src.tasks.Task,
            datamodule_class=src.data.TextDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            seed_everything_default=0,
            # a prefix of an option is no option: --trainer.max_epoch would be taken for max_epochs
            parser_kwargs={**strict, verb: strict},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=arguments,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the verb at hand."""
        return {self.verb: LightningCLI.subcommands()[self.verb]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--experiment", type=str, default="run", help="Runs go to logs/EXPERIMENT/version_N.")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(HParams, "hparams")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/loss",
                "checkpoint.filename": "best",
                "checkpoint.save_last": True,
                "checkpoint.auto_insert_metric_name": False,
                "trainer.default_root_dir": "logs",
                "trainer.log_every_n_steps": 10,
                "trainer.use_distributed_sampler": False,  # ours know their rank
            }
        )
        parser.link_arguments("seed_everything", "data.init_args.seed")
        parser.link_arguments("data.vocab_size", "model.init_args.config.vocab_size", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        classes.check_order(self.arguments)
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise InputError(self._explain(error)) from error
        except UnicodeDecodeError as error:
            configs = ", ".join(values_of(("--config", "-c"), self.arguments))
            raise InputError(f"a configuration file is not UTF-8 text: {configs}") from error

    def _explain(self, error: Exception) -> str:
        options = [action.dest for action in self._parser(self.verb)._actions]
        return one_line(str(error), options, self.arguments)

    def _parse_ckpt_path(self) -> None:
        """Nothing: the parent would let a checkpoint's values win over the command line. See :func:`main`."""

    def _plain_config(self) -> dict[str, Any]:
        """The resolved configuration, as plain values."""
        return yaml.safe_load(self.parser.dump(self.config, skip_unset=False))[self.verb]

    def before_instantiate_classes(self) -> None:
        if self.checkpoint_config is not None:
            now = {key: value for key, value in self._plain_config().items() if key not in OF_THE_VERB}
            changed = _differences(self.checkpoint_config, now)
            if changed:
                rank_zero_only(print)("\n".join(["changed from the checkpoint's configuration:", *changed]))

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except InputError:
            raise
        except (ValueError, TypeError) as error:  # a configuration refused by the class that it is for
            if "Does not validate" not in str(error) and "Parser key" not in str(error):
                raise
            raise InputError(self._explain(error)) from error

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """The trainer with this project's callbacks, precision by hardware, and a run folder of its own."""
        self.config_init[self.verb].hparams.read(self._plain_config())
        self.datamodule.setup(self.verb)
        self.model.check_data(self.datamodule)
        trainer = self.config[self.verb].trainer
        settings: dict[str, Any] = dict(kwargs)
        run = None
        if trainer.precision is None:
            # into the configuration too, so that the run's record says what it was
            settings["precision"] = trainer.precision = native_precision(trainer.accelerator)
        if not trainer.fast_dev_run:
            run = run_folder(Path(trainer.default_root_dir), self.config[self.verb].experiment)
            settings["default_root_dir"] = str(run)
            if trainer.logger is None:
                settings["logger"] = _loggers(run)
        callbacks = [Report(), Dashboard(), Throughput(), ProgressBar(), EndWithValidation(), Predictions()]
        self.trainer_defaults = {"callbacks": callbacks}
        try:
            made = super().instantiate_trainer(enable_model_summary=False, **settings)
            check_strategy(made, self.model)
            return made
        except InputError:
            raise
        except (ValueError, TypeError, MisconfigurationException) as error:
            if run is not None:
                with suppress(OSError):  # not empty, or another rank's
                    run.rmdir()
            raise InputError(f"trainer: {error}") from error

    def before_fit(self) -> None:
        # an untrained model's validation tells nothing, and the data were checked when they were prepared
        self.trainer.num_sanity_val_steps = 0

    def after_fit(self) -> None:
        print_results(self.trainer)


def check_strategy(trainer: L.Trainer, task: src.tasks.Task) -> None:
    """Refuse a strategy that cannot run this task on these devices, before any process is started.

    Raises:
        InputError: saying why.
    """
    processors = os.cpu_count() or 1
    cluster = getattr(trainer.strategy, "cluster_environment", None)
    started_here = cluster is not None and not cluster.creates_processes_externally
    if started_here and trainer.strategy.root_device.type == "cpu" and trainer.num_devices > processors:
        raise InputError(f"trainer.devices is {trainer.num_devices}: this machine has {processors} processors")
    if hasattr(trainer.strategy, "check"):
        trainer.strategy.check(trainer, task)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EMA):
            callback.check(trainer)


def _loggers(run: Path) -> list[Logger]:
    root, experiment, version = str(run.parent.parent), run.parent.name, run.name
    return [
        TensorBoardLogger(root, experiment, version, default_hp_metric=False),
        CSVLogger(root, experiment, version),
    ]


def checkpoint_layer(path: str, to_go_on: bool) -> dict[str, Any]:
    """The configuration inside a checkpoint, less what belonged to the verb that wrote it.

    Raises:
        InputError: a run is to go on from it, and it holds weights alone.
    """
    header = read_header(path)
    if to_go_on and not Path(path).is_dir() and "optimizer_states" not in header:
        raise InputError(f"{path} holds no run to go on with: start one from its weights by --model.pretrained {path}")
    config = yaml.safe_load(header["config"])
    return {key: value for key, value in config.items() if key not in OF_THE_VERB}


def _differences(old: Any, new: Any, key: str = "") -> list[str]:
    """The leaves of two nested configurations that differ, as ``key: old -> new``."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [line for k in keys for line in _differences(old.get(k), new.get(k), f"{key}.{k}" if key else k)]
    return [] if old == new else [f"{key}: {old} -> {new}"]


def quieten() -> None:
    """Leave out what Lightning says of itself, and warnings that nobody here can act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*Experiment logs directory .* exists and is not empty",  # ours, just made, holds the configuration
        ".*isinstance.treespec, LeafSpec.. is deprecated",
        ".*does not have many workers",  # the data are memory-mapped: a worker costs more than it saves
        ".*The dirpath has changed from",  # a resumed run has a folder of its own
        ".*compute.. method of metric .* was called before",  # those of a pipeline's first stages
        ".*was deprecated in v4",  # what Lightning calls in jsonargparse
        ".*The number of training batches .* is smaller than the logging interval",
    ):
        warnings.filterwarnings("ignore", message)


def main(arguments: list[str]) -> None:
    """Run a verb of the trainer.

    With ``--ckpt_path``, the checkpoint's own configuration is the lowest layer: the files of ``--config`` lie over it,
    and the command line over those. What they change is printed.
    """
    quieten()
    verb, *rest = arguments
    checkpoints = values_of(("--ckpt_path",), rest)
    layer = None
    if checkpoints and Path(checkpoints[-1]).suffix:
        layer = checkpoint_layer(checkpoints[-1], to_go_on=verb == "fit")
        rest = ["--config", yaml.safe_dump(layer), *rest]
    TrainingCLI(verb, [verb, *rest], layer)
