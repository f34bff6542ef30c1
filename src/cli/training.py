"""fit, validate, test and predict: a LightningCLI over this project's tasks and data."""

import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from traceback import walk_tb
from typing import Any, Literal

import lightning as L
import torch
import yaml
from jsonargparse import ArgumentError, Namespace
from jsonargparse._util import import_object
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import src.callbacks
import src.data
import src.distributed
import src.optim
import src.tasks
from src.architectures import architectures
from src.callbacks import (
    Checkpoints,
    Dashboard,
    EndWithValidation,
    ExactResume,
    Guard,
    HParams,
    LogsByStep,
    Predictions,
    ProgressBar,
    RunSummary,
    Throughput,
    print_results,
)
from src.checkpoint import read_header
from src.cli.check_strategy import check_strategy
from src.cli.class_names import allow_class_paths, check_order
from src.cli.config_overrides import OF_THE_VERB, changes, check_configs, config_of, header_of
from src.cli.loggers import as_list, complete, open_loggers, own_loggers
from src.cli.messages import called_as, file_with, one_line, quieten, values_of
from src.cli.records import SaveConfig
from src.cli.runs import experiment_folder, is_to_resume, lock_run, newest_checkpoint, run_folder
from src.cli.training_help import GROUPS
from src.discovery import parts
from src.distributed import with_checkpoint_io
from src.errors import InputError
from src.hardware import native_precision
from src.manifest import differences, manifest


class Parser(LightningArgumentParser):
    """Names the program as it was called, and takes no abbreviations; in a class's arguments and its help too."""

    def __init__(self, **kwargs: Any) -> None:
        # --trainer.max_epoch would be taken for max_epochs, --model.config.n_layer for n_layers
        super().__init__(**{"prog": called_as(), "allow_abbrev": False, **kwargs})

    def instantiate(self, namespace: Namespace, *args: Any, **kwargs: Any) -> Namespace:
        """Refuse first what is no mapping where a dataclass is meant, which the parent's parsing lets through."""
        for group in self._action_groups:
            value = namespace.get(str(group.dest), {}) if hasattr(group, "group_class") else {}
            if not isinstance(value, dict | Namespace):
                raise InputError(f"{group.dest} is {value!r}: it must be keys and values")
        return super().instantiate(namespace, *args, **kwargs)


class TrainingCLI(LightningCLI):
    """Model, data, trainer and callbacks from YAML files, each over those before it, and the command line over all.

    Args:
        verb: fit, validate, test or predict.
        arguments: the command line, the verb first.
        checkpoint: what the checkpoint that the run starts from holds beside weights.
        run: the folder of the interrupted run that goes on; without, a new one is made.
        recorded: the manifest of a run that this one is to reproduce.
        callbacks: of the trainer, beside those of the configuration.
    """

    def __init__(
        self,
        verb: str,
        arguments: list[str],
        checkpoint: dict[str, Any] | None = None,
        run: Path | None = None,
        recorded: dict[str, Any] | None = None,
        callbacks: Sequence[L.Callback] = (),
    ) -> None:
        self.verb, self.arguments = verb, arguments
        self.checkpoint, self.run = checkpoint, run
        self.recorded, self.callbacks = recorded, callbacks
        self._new_run: Path | None = None  # the folder that this process has made
        for part in ("tasks", "data", "callbacks"):  # a class is named in short once it is imported
            list(parts(part))
        super().__init__(
            model_class=src.tasks.Task,
            datamodule_class=src.data.TextDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            parser_class=Parser,
            seed_everything_default=0,
            parser_kwargs={"exit_on_error": False, verb: {"exit_on_error": False}},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=arguments,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return only the verb at hand: one parser has some 150 options and is slow to build."""
        return {self.verb: LightningCLI.subcommands()[self.verb]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--experiment", type=str, default="run", help="Runs go to logs/EXPERIMENT/version_N.")
        # both are read off the command line before this parser is made, and stand here for `--help`
        resume_help = "auto goes on with the newest run of the experiment from its newest checkpoint, if it has one."
        parser.add_argument("--resume", type=Literal["auto"] | None, default=None, help=resume_help)
        allow_help = "A module whose classes a configuration may name; repeat it for several. Not in a configuration."
        parser.add_argument("--allow_class_paths", type=str | None, default=None, help=allow_help)
        matmul_help = "Of float32 matrix products on CUDA: high multiplies in TF32, several times as fast as highest."
        parser.add_argument(
            "--float32_matmul_precision", type=Literal["highest", "high"], default="high", help=matmul_help
        )
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        parser.add_lightning_class_args(Guard, "guard")
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
        parser.link_arguments(
            "data", "model.init_args.config.vocab_size", compute_fn=self.vocab_size, apply_on="instantiate"
        )

    def vocab_size(self, data: src.data.TextDataModule) -> int:
        """Prepare the data, which the trainer would do only later: the network is made for their vocabulary."""
        data.prepare_data()
        return data.vocab_size

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        check_configs(values_of(("--config", "-c"), self.arguments))
        check_order(self.arguments)
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise InputError(self._explain(error)) from error
        except UnicodeDecodeError as error:
            raise InputError("a file that an option names, as --trainer FILE does, is not UTF-8 text") from error

        settings = self.config[self.verb]
        for group in GROUPS:
            if not isinstance(settings[group], Namespace):
                where = file_with(group, self.arguments)
                raise InputError(f"{group}{where} is {settings[group]}: it must be keys and values")
        if not 0 <= settings.seed_everything < 1 << 32:
            raise InputError(f"seed_everything is {settings.seed_everything}: it must be from 0 to 2^32 - 1")
        for option in ("resume", "allow_class_paths"):
            if settings.pop(option) and not values_of((f"--{option}",), self.arguments):
                raise InputError(f"{option} is an option of the command line: take it out of the configuration")
        experiment_folder(Path(settings.trainer.default_root_dir), settings.experiment)  # refuses a wrong name
        if self.verb != "fit" and not settings.ckpt_path:
            raise InputError(f"{self.verb} is of a trained network: name a checkpoint by --ckpt_path")

    def _explain(self, error: Exception) -> str:
        options = [action.dest for action in self._parser(self.verb)._actions]
        return one_line(str(error), options, self.arguments)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: the parent would let a checkpoint's values win over the command line. See :func:`main`."""

    def _plain_config(self, config: Namespace | None = None) -> dict[str, Any]:
        """Return the resolved configuration, or another one, as plain values."""
        return yaml.safe_load(self.parser.dump(config or self.config, skip_unset=False))[self.verb]

    def before_instantiate_classes(self) -> None:
        for logger in as_list(self.config[self.verb].trainer.logger):
            if isinstance(logger, Namespace):
                complete(logger)
        if self.checkpoint is not None:
            kind, held = import_object(self.config[self.verb].model.class_path), self.checkpoint["architecture"]
            if kind.architecture != held:  # before all else that differs
                path = values_of(("--ckpt_path",), self.arguments)[-1]
                raise InputError(
                    f"--ckpt_path {path} holds a {held}, and {kind.__name__} trains a {kind.architecture}: leave out "
                    "--config, which the checkpoint carries, or start a run from its weights by --model.pretrained"
                )
            was = config_of(self.checkpoint)
            with suppress(ArgumentError):  # with the defaults of what it does not say, as one from Python; or as it is
                was |= self._plain_config(self.parser.parse_object({"subcommand": self.verb, self.verb: was}))
            was, now = ({k: v for k, v in c.items() if k not in OF_THE_VERB} for c in (was, self._plain_config()))
            changed = changes(was, now)
            if changed:
                rank_zero_only(print)("\n".join(["changed from the checkpoint's configuration:", *changed]))

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except InputError:
            raise
        except MisconfigurationException as error:  # by one of Lightning's own classes
            raise InputError(str(error)) from error
        except (ValueError, TypeError) as error:  # a configuration refused by the class that it is for
            if isinstance(error.__cause__, InputError):  # jsonargparse wraps what the link to the data raises
                raise error.__cause__ from None
            if "Does not validate" not in str(error) and "Parser key" not in str(error):
                raise
            raise InputError(self._explain(error)) from error

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Make the trainer with this project's callbacks, precision by hardware, and a run folder of its own."""
        self.config_init[self.verb].hparams.read(self._plain_config())
        self.check()
        trainer = self.config[self.verb].trainer
        plugins, given = (as_list(self.config_init[self.verb].trainer[name]) for name in ("plugins", "callbacks"))
        settings: dict[str, Any] = {**kwargs, "plugins": with_checkpoint_io(plugins)}
        if trainer.precision is None and not any(isinstance(plugin, Precision) for plugin in plugins):
            # into the configuration too, so that the run's record says what it was
            settings["precision"] = trainer.precision = native_precision(trainer.accelerator)
        self._record()
        if not trainer.fast_dev_run:
            run = self.run or run_folder(Path(trainer.default_root_dir), self.config[self.verb].experiment)
            if self.run is None and not rank_zero_only.rank:  # type: ignore[attr-defined]
                self._new_run = run
            settings["default_root_dir"] = str(run)
            named = [logger for logger in as_list(self.config_init[self.verb].trainer.logger) if logger is not True]
            if trainer.logger is not False:
                step = self.checkpoint["global_step"] if self.run and self.checkpoint else 0
                settings["logger"] = [*own_loggers(run, step), *named]
        callbacks = [RunSummary(), Dashboard(), Throughput(), ProgressBar(), EndWithValidation(), ExactResume()]
        callbacks += [Predictions(), *self.callbacks]
        self.trainer_defaults = {"callbacks": callbacks}
        try:
            if trainer.max_time is not None and not any(isinstance(callback, Timer) for callback in given):
                callbacks.insert(0, Timer(trainer.max_time))  # before what acts on it; Lightning would put it last
                settings["max_time"] = None
            made = super().instantiate_trainer(enable_model_summary=False, **settings)
            if made.strategy.root_device.type == "cuda":
                torch.set_float32_matmul_precision(self.config[self.verb].float32_matmul_precision)
            check_strategy(made, self.model, self.checkpoint if self.verb == "fit" else None)
            made._logger_connector = LogsByStep(made)
            if trainer.logger and not trainer.fast_dev_run:
                open_loggers(named, self._plain_config(), self.run)
            return made
        except (ValueError, TypeError, MisconfigurationException) as error:
            self._discard_run()
            if isinstance(error, InputError):
                raise
            raise InputError(f"trainer: {error}") from error

    def _run_subcommand(self, subcommand: str) -> None:
        if self.trainer.world_size > 1 and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            # until training begins: Python's handler waits while a process waits for another, which may have ended
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            with lock_run(self._new_run):  # that of a run which goes on is held since its checkpoint was chosen
                super()._run_subcommand(subcommand)
        except SystemExit as end:
            if self.trainer.interrupted:  # by Ctrl-C, before or after the steps: Lightning ends with status 1
                raise KeyboardInterrupt from end
            raise
        except (ValueError, MisconfigurationException) as error:
            # some settings Lightning checks only once it has data and loops, and not always by an exception of its own
            *_, (frame, _) = walk_tb(error.__traceback__)
            if not isinstance(error, InputError) and not str(frame.f_globals.get("__name__")).startswith("lightning."):
                raise
            if self.trainer.global_step <= (self.checkpoint or {}).get("global_step", 0):  # no step was made
                self._discard_run()
            raise error if isinstance(error, InputError) else InputError(f"trainer: {error}") from error

    def _discard_run(self) -> None:
        if self._new_run is not None:
            shutil.rmtree(self._new_run, ignore_errors=True)
            with suppress(OSError):  # the experiment has other runs
                self._new_run.parent.rmdir()

    def check(self) -> None:
        """Refuse, before the run has a folder, what cannot be trained or evaluated."""
        self.datamodule.setup(self.verb)
        self.model.check_data(self.datamodule)
        self._check_checkpoint()
        trainer = self.config[self.verb].trainer
        # a negative limit would turn the gradients round
        for setting, least in (("accumulate_grad_batches", 1), ("log_every_n_steps", 1), ("gradient_clip_val", 0)):
            if (value := trainer[setting]) is not None and not value >= least:
                raise InputError(f"trainer.{setting} is {value}: it must be at least {least}")
        if str(trainer.devices) in ("0", "[]"):
            raise InputError(f"trainer.devices is {trainer.devices}: it must be at least 1, or auto")
        with torch.device("meta"):
            network = architectures()[self.model.architecture].network(self.model.config)
        self.model.try_optimizer(network)

    def _check_checkpoint(self) -> None:
        """Refuse a checkpoint that is not for this network, tokenizer and data, or has done more steps than asked."""
        if self.checkpoint is None:
            if self.verb == "fit" and self.model.pretrained:
                header = read_header(self.model.pretrained)
                try:
                    self.model.check_pretrained(header, self.datamodule)
                except InputError as error:
                    raise InputError(f"--model.pretrained {self.model.pretrained}: {error}") from error
            return
        self.model.check_checkpoint(self.checkpoint, self.datamodule)
        if self.verb != "fit":
            return
        path, max_steps = self.config.fit.ckpt_path, self.config.fit.trainer.max_steps
        done = self.checkpoint["global_step"]
        if self.checkpoint.get("data_fingerprint") not in (None, self.datamodule.fingerprint()):
            raise InputError(
                "the data are not those that the checkpoint was trained on: give it those, or start a run on these "
                f"from its weights by --model.pretrained {path}"
            )
        if 0 <= max_steps < done:  # -1 is no limit
            raise InputError(
                f"trainer.max_steps is {max_steps}, and {path} has done {done} steps: ask for more, or start a run "
                f"from its weights by --model.pretrained {path}"
            )

    def _record(self) -> None:
        data, seed = self.datamodule, int(self.config[self.verb].seed_everything)
        record = manifest(sys.argv[1:], seed, data.fingerprint(), data.tokenizer.to_str())
        record["checkpoint"] = self.config[self.verb].ckpt_path
        modules = values_of(("--allow_class_paths",), self.arguments)
        self.save_config_kwargs = {"record": record, "in_place": self.run is not None, "modules": modules}
        if self.recorded is not None:
            found = differences(self.recorded, record) or ["nothing"]
            rank_zero_only(print)("\n".join(["differs from the record:", *found]))

    def before_fit(self) -> None:
        # an untrained model's validation tells nothing, and the data were checked when they were prepared
        self.trainer.num_sanity_val_steps = 0

    def after_fit(self) -> None:
        print_results(self.trainer, (self.checkpoint or {}).get("global_step", 0))

    def after_validate(self) -> None:
        if self._new_run is not None:
            print(f"metrics: {self._new_run}")

    after_test = after_validate


def main(
    arguments: list[str],
    callbacks: Sequence[L.Callback] = (),
    recorded: dict[str, Any] | None = None,
    cli: type[TrainingCLI] = TrainingCLI,
) -> None:
    """Run a verb of the trainer, with callbacks beside those of the configuration.

    With ``--ckpt_path``, the files of ``--config`` override the checkpoint's own configuration, and the command line
    overrides those. What they change is printed. ``--resume auto`` finds the checkpoint by itself, and goes on in the
    folder of its run.

    Args:
        arguments: the command line, the verb first.
        callbacks: of the trainer, beside those of the configuration.
        recorded: the manifest of the run that is to be reproduced.
        cli: what is made of the command line.
    """
    quieten()
    verb, *rest = arguments
    allow_class_paths(values_of(("--allow_class_paths",), rest))
    run, checkpoint = None, None
    if verb == "fit" and is_to_resume(rest) and (path := newest_checkpoint(rest)):
        run, rest = path.parent.parent, [*rest, "--ckpt_path", str(path)]
    with lock_run(run):
        if (paths := values_of(("--ckpt_path",), rest)) and Path(paths[-1]).suffix:
            checkpoint = header_of(paths[-1], to_go_on=verb == "fit")
            rest = ["--config", yaml.safe_dump(config_of(checkpoint)), *rest]
        cli(verb, [verb, *rest], checkpoint, run, recorded, callbacks)
