"""The z-loss (Chowdhery et al. 2022, section 5): keep the softmax's normaliser near 1, so that logits do not drift."""

from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from src.models import GPTConfig
from src.tasks import GPTModule
from src.tasks.base import Batch


class ZLossModule(GPTModule):
    """Train a GPT on its cross-entropy and ``z_weight · (log Z)²``, where Z is the sum of a position's exp(logits).

    Args:
        config: shape of the network.
        z_weight: of the second part.
        kwargs: as of any task.
    """

    averaged_over: ClassVar[dict[str, str]] = {"cross_entropy": "target_tokens", "z_loss": "target_tokens"}

    def __init__(self, config: GPTConfig, z_weight: float = 1e-4, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.z_weight = z_weight

    def targets(self, batch: Batch) -> dict[str, Any]:
        """None: the loss needs the logits, which a network that is given labels does not return."""
        return {}

    def summed_losses(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        logits, labels = outputs.float().flatten(0, 1), batch["labels"].flatten()
        log_z = logits.logsumexp(1)[labels != -100]
        return {
            "cross_entropy": cross_entropy(logits, labels, reduction="sum"),
            "z_loss": self.z_weight * log_z.square().sum(),
        }
