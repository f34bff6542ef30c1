"""Position encodings: how a network knows the order of its tokens.

By an embedding that is added to each: learned (Devlin et al. 2018, Radford et al. 2019) or sinusoidal (Vaswani et al.
2017, section 3.5). Or within attention: by rotating queries and keys (Su et al. 2021), or by a bias that falls with the
distance (ALiBi, Press et al. 2021).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

RopeScaling = Literal["linear", "ntk", "yarn", "llama3"]


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


class Positions(NamedTuple):
    """A position encoding.

    Args:
        table: makes what gives a vector for each position, to be added to the token's, from max_seq_len and d_model.
        attention: makes the self-attention of a block, from its configuration and the block's number, where it is
            one of its own.
    """

    table: Callable[[int, int], nn.Module] | None = None
    attention: Callable[..., Any] | None = None


# name in configurations -> the encoding
POSITIONS = {
    "learned": Positions(LearnedPositions),  # GPT-2, BERT
    "sinusoidal": Positions(SinusoidalPositions),  # the Transformer
    "rotary": Positions(),  # by :class:`Rope`
    "alibi": Positions(),  # by the attention span
}


@dataclass(frozen=True)
class Rope:
    """Rotary positions of a layer (Su et al. 2021). Plain values: layers with equal ones share their angles.

    Args:
        dims: how many of a head's dimensions are turned, an even number; the others carry no position.
        base: the pair i of position p is turned by ``p / base^(2i/dims)`` (section 3.2.2).
        scaling: how the angles of a context ``factor`` times as long as the trained one are brought into the trained
            range: ``linear`` divides all by the factor (Chen et al. 2023); ``ntk`` takes a larger base, so that the
            slowest pair alone is divided by it (bloc97 2023); ``yarn`` divides the slow pairs, keeps the fast ones, and
            scales the scores up (Peng et al. 2023, sections 3.2 to 3.4); ``llama3`` does as yarn by wavelengths, and
            leaves the scores (Llama 3.1). None for as it was trained.
        factor: see there.
        original_len: the trained context, in tokens, of ``yarn`` and ``llama3``.
    """

    dims: int
    base: float = 1e4
    scaling: RopeScaling | None = None
    factor: float = 1.0
    original_len: int | None = None

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the angle by which each pair is turned at (T,) positions, each (T, dims / 2)."""
        # float32 would be wrong by 0.001 at position 16,384; Apple's devices have nothing finer
        dtype = torch.float32 if positions.device.type == "mps" else torch.float64
        angle = positions[:, None].to(dtype) * self._frequencies(dtype, positions.device)
        cos, sin = angle.cos(), angle.sin()
        if self.scaling == "yarn":  # on queries and keys both: their products grow by its square
            temperature = 0.1 * math.log(self.factor) + 1
            cos, sin = cos * temperature, sin * temperature
        return cos.float(), sin.float()

    def _frequencies(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Radians a token of each pair, (dims / 2,)."""
        base = self.base
        if self.scaling == "ntk":
            base *= self.factor ** (self.dims / (self.dims - 2))
        pair = torch.arange(0, self.dims, 2, dtype=dtype, device=device)
        frequency = torch.exp(pair * (-math.log(base) / self.dims))
        if self.scaling == "linear":
            return frequency / self.factor
        if self.scaling == "yarn":
            # pairs that turn 32 times or more in the trained context are kept, those that turn once or less divided
            first, last = math.floor(self._pair_of(32)), math.ceil(self._pair_of(1))
            first, last = max(first, 0), min(last, self.dims - 1)
            divided = ((pair / 2 - first) / max(last - first, 0.001)).clamp(0, 1)
            return frequency / self.factor * divided + frequency * (1 - divided)
        if self.scaling == "llama3":
            turns = frequency * (self.original_len or 0) / (2 * math.pi)
            kept = ((turns - 1) / 3).clamp(0, 1)  # from 4 turns on as they are
            return frequency / self.factor * (1 - kept) + frequency * kept
        return frequency

    def _pair_of(self, turns: float) -> float:
        """Which pair turns so many times in the trained context; fractions lie between two."""
        return self.dims * math.log((self.original_len or 0) / (turns * 2 * math.pi)) / (2 * math.log(self.base))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of dimensions (i, i + dims / 2) of queries or keys (..., T, head_dim) by its angle.

    Where the angles (..., T, dims / 2) are fewer than a head's pairs, its last dimensions stay as they are.
    """
    if (dims := 2 * cos.shape[-1]) < x.shape[-1]:
        return torch.cat([rotate(x[..., :dims], cos, sin), x[..., dims:]], -1)
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
