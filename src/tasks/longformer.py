"""Longformer's pretraining: predict masked words in long texts."""

from lightning.pytorch.cli import OptimizerCallable

from src.models import Longformer, LongformerConfig
from src.optim import Schedule
from src.tasks.bert import BERTModule


class LongformerModule(BERTModule):
    """Pretrain a Longformer: as :class:`BERTModule`, on masked words alone.

    Args:
        config: shape of the network; the vocabulary size comes from the data.
        optimizer: class and arguments of the optimizer; ``lr`` is the peak of the schedule.
        schedule: of the learning rate.
        pretrained: a checkpoint of such a network, such as `extend-context` makes of a BERT; from scratch if null.
        compile: whether to compile each block with ``torch.compile``.
        activation_checkpointing: whether to compute blocks anew for their backward pass, to save memory.
    """

    architecture = "longformer"
    objectives = ("mlm",)
    model: Longformer

    def __init__(
        self,
        config: LongformerConfig,
        optimizer: OptimizerCallable,
        schedule: Schedule,
        pretrained: str | None = None,
        compile: bool = False,  # noqa: A002
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(config, optimizer, schedule, pretrained, compile, activation_checkpointing)

    def build_model(self) -> Longformer:
        assert isinstance(self.config, LongformerConfig)
        return Longformer(self.config)
