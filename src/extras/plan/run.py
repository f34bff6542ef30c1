"""What a configuration says of a run, without a trainer."""

from dataclasses import dataclass
from typing import Any

import lightning as L

from src.cli.training import TrainingCLI
from src.data import TextDataModule
from src.distributed import MeshStrategy, PipelineStrategy
from src.extras.plan.network import Facts, facts_of
from src.extras.plan.strategies import Layout
from src.tasks.trained import NetworkCallback

MESHES: dict[str, type[MeshStrategy]] = {kind.__name__: kind for kind in (MeshStrategy, PipelineStrategy)}


@dataclass(frozen=True)
class Run:
    """A run to plan.

    Args:
        facts: of its network.
        precision: Lightning's name.
        rows: of a micro-batch, as configured; None where that is a number of tokens.
        checkpointing: whether activations are checkpointed.
        strategy: the class that is configured, and its arguments.
    """

    facts: Facts
    precision: str
    rows: int | None
    checkpointing: bool
    strategy: tuple[str, dict[str, Any]]

    def layout(self, devices: int) -> Layout | None:
        """Lay out the configured strategy over the devices; None for a single one."""
        name, options = self.strategy
        if devices == 1:
            return None
        if name == "ZeroStrategy":
            return Layout(f"zero{options['stage']}", devices)
        if name in MESHES:
            sizes = MESHES[name](**options).sizes(devices)
            tensor, stages = sizes["tensor_parallel"], sizes.get("pipeline", 1)
            kind = "pipeline" if "pipeline" in sizes else "fsdp" if tensor == 1 else "tensor_parallel"
            micro_batches, context = options.get("micro_batches", 1), sizes.get("context_parallel", 1)
            return Layout(kind, devices, tensor, stages, micro_batches, options["replicate_size"], context)
        return Layout("ddp", devices)


class PlanCLI(TrainingCLI):
    """Everything up to the trainer, with data that are not prepared where their vocabulary is known without."""

    def __init__(self, arguments: list[str], given_vocab_size: int | None) -> None:
        self.given_vocab_size = given_vocab_size
        super().__init__("fit", ["fit", *arguments])

    def vocab_size(self, data: TextDataModule) -> int:
        trained = getattr(data, "tokenizer_kind", None) in ("bpe", "wordpiece")
        known = self.given_vocab_size or (data.tokenizer_vocab_size if trained else None)  # type: ignore[attr-defined]
        return known or super().vocab_size(data)

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Make one of this machine, since the devices are not here, with the callbacks that change the network."""
        given = self._get(self.config_init, "trainer", default={}).get("callbacks") or []
        callbacks: list[L.Callback] = [callback for callback in given if isinstance(callback, NetworkCallback)]
        return L.Trainer(accelerator="cpu", devices=1, callbacks=callbacks, logger=False, enable_checkpointing=False)

    def _run_subcommand(self, subcommand: str) -> None:
        """Do nothing: that would train."""


def read(arguments: tuple[str, ...], vocab_size: int | None) -> Run:
    """Read the configuration of a run from the options of fit."""
    cli = PlanCLI(list(arguments), vocab_size)
    task, data, trainer = cli.model, cli.datamodule, cli.config.fit.trainer
    task.trainer = cli.trainer
    precision = trainer.precision or "bf16-mixed"
    positions = getattr(task.config, "context", task.config.max_seq_len) or task.config.max_seq_len
    seq_len = vars(data).get("seq_len") or positions
    strategy = trainer.strategy
    named = (
        ("DDPStrategy", {})
        if isinstance(strategy, str)
        else (strategy.class_path.rpartition(".")[2], dict(strategy.get("init_args") or {}))
    )
    facts = facts_of(task, precision, seq_len)
    return Run(facts, precision, vars(data).get("batch_size"), task.activation_checkpointing, named)
