"""KERPLE (Chi et al. 2022): a learned bias of the scores that falls with the logarithm of the distance."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from src.nn import POSITIONS, BlockConfig, KVCache, Mask, Positions, SelfAttention


class KerpleAttention(SelfAttention):
    """Self-attention with ``-r1 · log(1 + r2 · |i - j|)`` added to the score of query i and key j (equation 5)."""

    def __init__(self, config: BlockConfig, layer: int = 0) -> None:
        super().__init__(config, layer)
        # r1 and r2 are positive: the softplus of these
        self.r1, self.r2 = (nn.Parameter(torch.linspace(-1, 1, config.n_heads)) for _ in range(2))

    def bias(self, distance: Tensor) -> Tensor:
        """Distances (1, T, S) to what is added to the scores of each head, (H, T, S)."""
        r1, r2 = softplus(self.r1)[:, None, None], softplus(self.r2)[:, None, None]
        return -r1 * torch.log1p(r2 * distance.abs())

    def forward(self, x: Tensor, mask: Mask, cache: KVCache | None = None) -> Tensor:
        return super().forward(x, replace(mask, bias=self.bias), cache)

    def weights(self, x: Tensor, mask: Mask) -> Tensor:
        return super().weights(x, replace(mask, bias=self.bias))


POSITIONS["kerple"] = Positions(attention=KerpleAttention)
