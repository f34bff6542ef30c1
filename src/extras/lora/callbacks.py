"""What a run is given to train adapters alone."""

import math
from fnmatch import fnmatchcase
from typing import Any

import lightning as L
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import nn

from src.distributed import MeshStrategy
from src.errors import InputError
from src.extras.lora.layers import add_adapters
from src.extras.lora.merging import unmerge
from src.tasks.trained import NetworkCallback

CLASSIFIER = ["classifier.*"]
SAVED_IN_SHARDS = ("save_distributed_checkpoint", "_save_distributed_checkpoint")


class LoRA(NetworkCallback):
    """Fine-tune by low-rank adapters (Hu et al. 2021) on the linear layers of the blocks; all else is frozen.

    A checkpoint has the adapters beside the weights, so that a run goes on from it, and whoever reads it gets the two
    merged. Optimizer and gradients are those of the adapters alone.

    Args:
        rank: of each adapter.
        alpha: the product of an adapter's matrices is multiplied by alpha / rank.
        dropout: of what an adapter reads.
        targets: names of the layers that get one, such as ``[qkv, out]``; all linear layers of the blocks if None.
        also_train: names of parameters that are trained too, by shell patterns; if None those of a classifier, which
            no pretrained encoder has.
    """

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        targets: list[str] | None = None,
        also_train: list[str] | None = None,
    ) -> None:
        if rank < 1 or alpha <= 0 or not 0 <= dropout < 1:
            raise InputError("LoRA: rank must be at least 1, alpha above 0, dropout at least 0 and less than 1")
        self.rank, self.alpha, self.dropout = rank, alpha, dropout
        self.targets, self.also_train = targets, also_train

    def adapt(self, network: nn.Module) -> None:
        add_adapters(network, self.rank, self.alpha, self.dropout, self.targets)
        parameters = dict(network.named_parameters(remove_duplicate=False))
        for pattern in CLASSIFIER if self.also_train is None else self.also_train:
            found = [name for name in parameters if fnmatchcase(name, pattern)]
            if not found and self.also_train is not None:
                raise InputError(f"LoRA: also_train {pattern!r} matches no parameter of this network")
            for name in found:
                parameters[name].requires_grad_(True)

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Take the adapters apart from the weights again."""
        for name, weight in checkpoint.get("unmerged", {}).items():
            if name.endswith(".scaling") and not math.isclose(weight.item(), self.alpha / self.rank, rel_tol=1e-6):
                raise InputError(f"LoRA: the checkpoint has alpha {weight.item() * self.rank:g}, not {self.alpha:g}")
        unmerge(checkpoint)

    def check(self, trainer: L.Trainer) -> None:
        """Refuse what would cut an adapter's matrices, and checkpoints that are folders, whose parts are not merged."""
        strategy: Any = trainer.strategy
        if isinstance(strategy, MeshStrategy) and strategy.sizes(trainer.world_size)["tensor_parallel"] > 1:
            raise InputError("LoRA: an adapter is not cut over tensor-parallel ranks: choose ddp or fsdp")
        in_shards = any(vars(strategy).get(name) for name in SAVED_IN_SHARDS)
        if in_shards or isinstance(strategy, DeepSpeedStrategy):
            raise InputError(
                "LoRA: adapters are saved in one file: choose ddp or fsdp, with save_distributed_checkpoint false"
            )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.check(trainer)  # of a Trainer from Python, which has checked nothing before
