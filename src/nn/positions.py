"""Position embeddings: learned (Devlin et al. 2018, Radford et al. 2019) and sinusoidal (Vaswani et al. 2017, 3.5)."""

import math

import torch
from torch import Tensor, nn


def position_ids(input_ids: Tensor, attention_mask: Tensor | None = None, offset: int = 0) -> Tensor:
    """The position of each token among the real tokens of its row.

    Args:
        input_ids: (batch, seq).
        attention_mask: (batch, offset + seq), 1 at real tokens and 0 at padding, on whichever side that stands.
        offset: how many tokens stand before ``input_ids`` in a cache.

    Returns:
        (batch, seq), or (1, seq) without a mask. Padding before the first real token is given position 0.
    """
    if attention_mask is None:
        return torch.arange(offset, offset + input_ids.shape[1], device=input_ids.device)[None]
    return (attention_mask.long().cumsum(1) - 1).clamp_(min=0)[:, offset:]


class LearnedPositions(nn.Embedding):
    """A trained vector for each of ``max_seq_len`` positions: (batch, seq) to (batch, seq, d_model)."""


class SinusoidalPositions(nn.Module):
    """Fixed sines and cosines: ``PE(p, 2i) = sin(p / 10000^(2i/d_model))``, ``PE(p, 2i+1) = cos`` of the same.

    The table is computed in float64, is no parameter, and is not saved: it follows from its two sizes.
    """

    table: Tensor

    def __init__(self, max_seq_len: int, d_model: int) -> None:
        super().__init__()
        self.max_seq_len, self.d_model = max_seq_len, d_model
        self.register_buffer("table", self._table(), persistent=False)

    def _table(self) -> Tensor:
        position = torch.arange(self.max_seq_len, dtype=torch.float64)[:, None]
        frequency = torch.exp(torch.arange(0, self.d_model, 2, dtype=torch.float64) * (-math.log(1e4) / self.d_model))
        table = torch.empty(self.max_seq_len, self.d_model, dtype=torch.float64)
        table[:, 0::2] = torch.sin(position * frequency)
        table[:, 1::2] = torch.cos(position * frequency[: self.d_model // 2])  # an odd width has one cosine fewer
        return table.float()

    def forward(self, positions: Tensor) -> Tensor:
        return self.table[positions]
