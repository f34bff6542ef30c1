"""Position encodings: how a network knows the order of its tokens.

By an embedding that is added to each: learned (Devlin et al. 2018, Radford et al. 2019) or sinusoidal (Vaswani et al.
2017, section 3.5). Or within attention: by rotating queries and keys (Su et al. 2021), or by a bias that falls with the
distance (ALiBi, Press et al. 2021).
"""

import math

import torch
from torch import Tensor, nn


def position_ids(
    input_ids: Tensor, attention_mask: Tensor | None = None, offset: int = 0, documents: Tensor | None = None
) -> Tensor:
    """The position of each token among the real tokens of its row, or of its document.

    Args:
        input_ids: (batch, seq).
        attention_mask: (batch, offset + seq), 1 at real tokens and 0 at padding, on whichever side that is.
        offset: how many tokens are before ``input_ids`` in a cache.
        documents: (batch, seq), the number of each token's document: each begins at 0. Without mask and offset.

    Returns:
        (batch, seq), or (1, seq) without a mask. Padding before the first real token has position 0.
    """
    if documents is not None:
        index = torch.arange(input_ids.shape[1], device=input_ids.device)
        begins = torch.ones_like(documents, dtype=torch.bool)
        begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
        return index - (index * begins).cummax(1).values
    if attention_mask is None:
        return torch.arange(offset, offset + input_ids.shape[1], device=input_ids.device)[None]
    return (attention_mask.long().cumsum(1) - 1).clamp_(min=0)[:, offset:]


class LearnedPositions(nn.Embedding):
    """A trained vector for each of ``max_seq_len`` positions: (batch, seq) to (batch, seq, d_model)."""


class SinusoidalPositions(nn.Module):
    """Fixed sines and cosines: ``PE(p, 2i) = sin(p / 10000^(2i/d_model))``, ``PE(p, 2i+1) = cos`` of the same.

    The table is computed in float64, is not a parameter, and is not saved: it follows from its two sizes.
    """

    table: Tensor

    def __init__(self, max_seq_len: int, d_model: int) -> None:
        super().__init__()
        self.max_seq_len, self.d_model = max_seq_len, d_model
        position = torch.arange(max_seq_len, dtype=torch.float64)[:, None]
        frequency = torch.exp(torch.arange(0, d_model, 2, dtype=torch.float64) * (-math.log(1e4) / d_model))
        table = torch.empty(max_seq_len, d_model, dtype=torch.float64)
        table[:, 0::2] = torch.sin(position * frequency)
        table[:, 1::2] = torch.cos(position * frequency[: d_model // 2])  # an odd width has one cosine fewer
        self.register_buffer("table", table.float(), persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        return self.table[positions]


def rotary_angles(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angle by which each pair of a head's dimensions is turned, each (T, head_dim / 2).

    The pair i of position p is turned by ``p / 10000^(2i/head_dim)`` (Su et al. 2021, section 3.2.2).
    """
    # float32 would be wrong by 0.001 at position 16,384; Apple's devices have nothing finer
    dtype = torch.float32 if positions.device.type == "mps" else torch.float64
    pair = torch.arange(0, head_dim, 2, dtype=dtype, device=positions.device)
    angle = positions[:, None].to(dtype) * torch.exp(pair * (-math.log(1e4) / head_dim))
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of dimensions (i, i + head_dim / 2) of queries or keys (..., T, head_dim) by its angle."""
    first, second = x.chunk(2, -1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
    return turned.to(x.dtype)


def alibi_slopes(n_heads: int) -> tuple[float, ...]:
    """The slope of each head's bias: ``2^(-8/n), 2^(-16/n), ...`` (Press et al. 2021, section 3).

    Where n is no power of two, the slopes are those of the next smaller power, and then every other one of its double.
    """
    power = 1 << (n_heads.bit_length() - 1)
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    between = [2 ** (-8 * (i + 1) / (2 * power)) for i in range(0, 2 * power, 2)]
    return tuple(slopes + between[: n_heads - power])
