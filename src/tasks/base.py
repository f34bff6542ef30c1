"""What every task shares: from a batch to the loss, evaluation, what is built, and checkpoints."""

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils import cpp_extension
from torch.utils.checkpoint import checkpoint
from torchmetrics import Metric

from src.architectures import architectures
from src.arguments import arguments_of
from src.checkpoint import check_compatible, read_checkpoint
from src.data import Baselines, TextDataModule
from src.data.loader import target_counts
from src.distributed import PipelineStrategy
from src.errors import InputError
from src.models.network import Network
from src.nn import Block
from src.optim import GroupOptions, Schedule
from src.tasks.configuration import check_optimizer, configuration, load_task
from src.tasks.optimization import Optimization
from src.tasks.trained import NetworkCallback, check_trained, freeze, trained_sizes

Batch = dict[str, Tensor]
Charts = dict[str, dict[str, list[str]]]  # section -> chart -> tags of its curves


class Task(Optimization, ABC):
    """A network, its objective and its training.

    A subclass names its ``architecture``, and says what the network is given and what it gives.

    Args:
        config: shape of the network; sizes that the data decide, as that of the vocabulary, come from them.
        optimizer: class and arguments of the optimizer; ``lr`` is the peak of the schedule.
        schedule: of the learning rate, a factor at each optimizer step.
        groups: what the kinds of parameters have of their own in the optimizer.
        pretrained: a checkpoint whose weights training starts from; from scratch if None.
        freeze: names of parameters that are not trained, by shell patterns such as ``encoder.*``; none if None.
        compile: whether to compile each block with ``torch.compile``.
        activation_checkpointing: whether to compute what is in a block anew for its backward pass, instead of keeping
            it: a third more work, for the memory of all blocks but one (Chen et al. 2016).
    """

    architecture: str
    model: Network
    data_class: type[TextDataModule]  # what it trains on
    in_batch_negatives = False  # whether the loss of a row depends on the other rows of its batch
    # the parts of the loss by name -> the count of targets that each is averaged over
    averaged_over: ClassVar[dict[str, str]] = {"loss": "target_tokens"}
    charts: ClassVar[Charts] = {"Loss": {"Training and validation": ["train/loss", "val/loss"]}}  # of a dashboard

    def __init__(
        self,
        config: Any,
        optimizer: OptimizerCallable,
        schedule: Schedule,
        groups: GroupOptions = GroupOptions(),  # noqa: B008  # frozen
        pretrained: str | None = None,
        freeze: list[str] | str | None = None,
        compile: bool = False,  # noqa: A002
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(optimizer, schedule, groups)
        self.arguments = arguments_of(self)
        if self.architecture not in architectures():
            raise InputError(f"{type(self).__name__} trains a {self.architecture}, which no module has registered")
        self.config, self.pretrained = config, pretrained
        self.freeze_patterns = [freeze] if isinstance(freeze, str) else freeze or []
        self.compile_blocks, self.activation_checkpointing = compile, activation_checkpointing
        self.batches: list[tuple[int, Batch, Tensor]] = []  # of the optimizer step at hand: index, batch and loss
        # gives what a checkpoint says of its run, where the command line knows that
        self.run_record: Callable[[], dict[str, Any]] | None = None
        self.loaded: dict[str, Any] | None = None  # the checkpoint that its network is of, without the weights

    @property
    def data(self) -> TextDataModule:
        """The data that this task runs on."""
        if (data := self.trainer.datamodule) is None:  # type: ignore[attr-defined]
            raise InputError("the trainer was given loaders: give it a data module, as in fit(task, datamodule=data)")
        return data

    @property
    def pipeline(self) -> PipelineStrategy | None:
        """The strategy, where no process has the whole network."""
        strategy = self.trainer.strategy if self._trainer is not None else None
        return strategy if isinstance(strategy, PipelineStrategy) else None

    # ---- from a batch to its loss

    @property
    def network_callbacks(self) -> list[NetworkCallback]:
        """Those of the trainer's callbacks that change the network."""
        callbacks = self.trainer.callbacks if self._trainer is not None else []  # type: ignore[attr-defined]
        return [callback for callback in callbacks if isinstance(callback, NetworkCallback)]

    def build_model(self) -> Any:
        """Make the network of ``self.config``, with its initial weights."""
        return self.adapted(architectures()[self.architecture].network(self.config))

    def adapted(self, network: Any) -> Any:
        """Let callbacks change a network that was just made, and freeze what is not trained."""
        for callback in self.network_callbacks:
            callback.adapt(network)
        freeze(network, self.freeze_patterns)
        return network

    @abstractmethod
    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Choose the network's arguments from a batch."""

    def targets(self, batch: Batch) -> dict[str, Any]:
        """Choose the further arguments with which the network gives a summed loss in place of logits."""
        return {"labels": batch["labels"]}

    def summed_losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Take the parts of the loss, each summed over its targets, from what the network gives with the targets."""
        return {"loss": outputs}

    def mean_losses(self, outputs: Any, batch: Batch, counts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Divide the summed losses by the targets of the whole optimizer step: see :meth:`losses`."""
        summed = self.summed_losses(outputs, batch)
        return {name: summed[name] / counts[count] for name, count in self.averaged_over.items()}

    def outputs(self, batch: Batch, **targets: Any) -> Any:
        """Run the network on a batch; None where another process of a pipeline has its output."""
        arguments = {**self.inputs(batch), **targets}
        return self.model(**arguments) if self.pipeline is None else self.pipeline.outputs(arguments)

    def losses(self, batch: Batch, counts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute the parts of the loss by name, to be summed.

        Args:
            batch: with its labels.
            counts: of the targets of the optimizer step, over all accumulated batches and all ranks, divided by the
                number of those, 0-dim on the device. So each loss is the batch's share of a mean over the step, and k
                batches of B train as one of k·B, whatever the counts in each.
        """
        if self.pipeline is not None:
            return self.pipeline.losses(batch, counts)  # which runs the backward pass between the forward ones
        return self.mean_losses(self.outputs(batch, **self.targets(batch)), batch, counts)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss of the optimizer step, as this batch's share of it; its parts are logged apart."""
        parts = self.losses(batch, target_counts(batch))
        loss = torch.stack(list(parts.values())).sum()
        for name, value in {**parts, "loss": loss}.items():
            self.collect(name, value)
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.batches.clear()
        self.batches.append((batch_idx, batch, loss.detach()))
        return loss

    def count_tokens(self, batch: Batch) -> int | Tensor:
        """Count the tokens that the network reads, padding apart; a 0-dim tensor, so as not to wait for a GPU."""
        return batch["attention_mask"].sum()

    # ---- evaluation

    @abstractmethod
    def update_metrics(self, outputs: Any, batch: Batch) -> None:
        """Add the network's output for a batch of an evaluation to the metrics."""

    @abstractmethod
    def log_metrics(self, split: str, prefix: str) -> None:
        """Log the metrics of a whole split by names that begin with a prefix, and reset them."""

    def evaluate(self, batch: Batch) -> None:
        outputs = self.outputs(batch)
        if outputs is not None:
            self.update_metrics(outputs, batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self.log_metrics("validation", "val")

    def on_test_epoch_end(self) -> None:
        self.log_metrics("test", "test")

    def log_means(self, prefix: str, *names: str) -> None:
        """Log and reset the metrics of these names."""
        for name in names:
            metric = getattr(self, name)
            self.log(f"{prefix}/{name}", metric.compute(), prog_bar=name == "loss")
            metric.reset()

    def prediction_table(self, predictions: list[Any]) -> list[Mapping[str, Any]] | None:
        """Make the rows of a table of all predictions, given what ``predict_step`` gave on each rank; None for none."""
        return None

    # ---- what is built

    def meta_model(self) -> Any:
        """Build the whole network without its weights, however much of it this process holds."""
        with torch.device("meta"):
            return self.build_model()

    def check_data(self, data: TextDataModule) -> None:
        """Refuse data of another kind, and too long for the network; take the size of the vocabulary from them."""
        kind = self.data_class
        if not isinstance(data, kind):
            raise InputError(
                f"{type(self).__name__} trains on {kind.__name__}, not on {type(data).__name__}: change data"
            )
        positions = self.config.context if hasattr(self.config, "context") else self.config.max_seq_len
        seq_len = vars(data).get("seq_len")
        if None not in (positions, seq_len) and seq_len > positions:
            raise InputError(f"data.seq_len {seq_len} is more than the model's max_seq_len {positions}: change one")
        if hasattr(self, "model") and self.config.vocab_size != data.vocab_size:
            raise InputError(
                f"the network was built for {self.config.vocab_size} tokens, and the data have {data.vocab_size}: give "
                "it the data that it was trained on"
            )
        self.config = replace(self.config, vocab_size=data.vocab_size)

    def setup(self, stage: str) -> None:
        """Take sizes from the data, and refuse what cannot be run on them."""
        self.check_data(self.data)
        if self.loaded is not None:
            self.check_checkpoint(self.loaded, self.data)
        if self.trainer.world_size > 1 and self.trainer._accelerator_connector.use_distributed_sampler:
            raise InputError(
                "the samplers of the data know their process: give the Trainer use_distributed_sampler=False"
            )

    def baselines(self) -> Baselines:
        """Compute what models that only count reach on the validation split, by the names that a validation logs.

        Called by one process alone: it must wait for no other.
        """
        return Baselines({})

    def initial_model(self) -> Any:
        """Make the network with the weights that training starts from: its initial ones, or those of a checkpoint."""
        model = self.build_model()
        # a run that goes on has weights of its own, and the other verbs evaluate a checkpoint
        if self.pretrained and self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.ckpt_path:
            self.load_pretrained(model, read_checkpoint(self.pretrained))
        return model

    def configure_model(self) -> None:
        """Build the network, once, under the precision of the strategy."""
        if not hasattr(self, "model"):
            # a strategy that cuts it takes it without its weights, and then makes `initial_model` a parameter at a time
            cut = self._trainer is not None and getattr(self.trainer.strategy, "builds_on_meta", False)
            with torch.device("meta" if cut else "cpu"):  # not on a GPU, which draws other numbers
                self.model = self.build_model() if cut else self.initial_model()
            # both in place, as a wrapper's name would be in every key of a checkpoint; compiled first, since torch
            # compiles nothing of a method that is a call of `checkpoint`
            for block in self.model.modules():
                if isinstance(block, Block) and self.compile_blocks:
                    # torch gives it to the linker as it is: the project's path may have spaces
                    cpp_extension.TORCH_LIB_PATH = shlex.quote(str(Path(torch.__file__).parent / "lib"))
                    block.forward = torch.compile(block.forward)  # type: ignore[method-assign]
                if isinstance(block, Block) and self.activation_checkpointing:
                    block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]

    def load_pretrained(self, model: Network, checkpoint: dict[str, Any]) -> None:
        """Take over the weights of a checkpoint."""
        self.check_pretrained(checkpoint, self.data)
        weights = checkpoint["state_dict"].items()
        model.load_state_dict({name.removeprefix("model."): weight for name, weight in weights})

    def check_pretrained(self, checkpoint: dict[str, Any], data: TextDataModule) -> None:
        """Refuse to take over the weights of another architecture, shape or tokenizer."""
        self.check_checkpoint(checkpoint, data)

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what makes the file enough by itself: which network it is, its shape, tokenizer and configuration."""
        for name in ("hparams_name", "hyper_parameters", "datamodule_hparams_name", "datamodule_hyper_parameters"):
            checkpoint.pop(name, None)  # of a subclass that saves them: the configuration has them, in plain values
        checkpoint["architecture"] = self.architecture
        checkpoint["model_config"] = asdict(self.config)
        checkpoint["tokenizer"] = self.data.tokenizer.to_str()
        checkpoint["special_tokens"] = dict(self.data.special_tokens)
        checkpoint.update(configuration(self) if self.run_record is None else self.run_record())
        network = self.meta_model()
        if not all(parameter.requires_grad for parameter in network.parameters()):
            checkpoint["trained"] = trained_sizes(network)
        if self.groups != GroupOptions():
            checkpoint["groups"] = asdict(self.groups)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, map_location: str | torch.device = "cpu", **arguments: Any
    ) -> Self:
        """Make the task of a checkpoint with its trained network, whether the command line or Python has saved it.

        Args:
            checkpoint_path: of one file.
            map_location: the device that the network is moved to.
            arguments: of the class, in place of those that the checkpoint says.
        """
        return load_task(cls, checkpoint_path, arguments).to(map_location)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check_checkpoint(checkpoint, self.data)
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.check_trained(checkpoint)
        self.restore_weights(checkpoint)

    def restore_weights(self, checkpoint: dict[str, Any]) -> None:
        """Let callbacks change the weights that were read of a checkpoint to those of the network that they changed."""
        for callback in self.network_callbacks:
            callback.restore(checkpoint)

    def check_trained(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on from a checkpoint whose run trained other parameters, or by another optimizer."""
        if "trained" in checkpoint or self.freeze_patterns or self.network_callbacks:
            with torch.device("meta"):
                network = architectures()[self.architecture].network(self.config)
            check_trained(checkpoint.get("trained", trained_sizes(network)), trained_sizes(self.meta_model()))
        was = GroupOptions(**checkpoint.get("groups", {}))
        if was.embeddings_apart != self.groups.embeddings_apart:
            raise InputError(
                f"the checkpoint's run had {was}, this configuration has {self.groups}, and embeddings are a group of "
                "their own in one of them alone: set model.groups as it was, or start a run from its weights by "
                "--model.pretrained"
            )
        check_optimizer(checkpoint, self.make_optimizer)

    def check_checkpoint(self, checkpoint: dict[str, Any], data: TextDataModule) -> None:
        """Refuse a checkpoint of another architecture, shape or tokenizer, naming the first thing that differs."""
        check_compatible(checkpoint, self.architecture, asdict(self.config), data.tokenizer.to_str())


def update_mean(metric: Metric, summed: Tensor, count: Tensor) -> None:
    """Add a sum over ``count`` targets, which may be 0: where ranks share a split, a batch may be all padding."""
    metric.update(summed / count.clamp(min=1), weight=count)
