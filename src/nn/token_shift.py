"""What a sub-layer reads of the token before (Peng et al. 2023, RWKV, section 3.1)."""

import torch
from torch import Tensor, nn

from src.nn.cache import KVCache
from src.nn.masks import Mask
from src.nn.token_shards import TokenShards


class Scale(nn.Module):
    """Multiply each channel by a number, at first 0."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.to(x.dtype) * x


class TokenShift(nn.Module):
    """Add to each token a part of the one before it, channel by channel: ``x_t + w · x_{t-1}``, at first ``x_t``.

    Where that is padding, or of another document, nothing is added. A head can then match what followed a token, which
    otherwise takes two layers. RWKV has ``(1 - w) · x_t + w · x_{t-1}``.

    Args:
        d_model: channels.
        name: of this one among those of a block, by which the block's cache holds the last token.
    """

    def __init__(self, d_model: int, name: str) -> None:
        super().__init__()
        self.scale = Scale(d_model)  # a module, which a strategy that replicates its weight can wrap
        self.name, self.tokens = name, TokenShards()

    def shard_tokens(self, tokens: TokenShards) -> None:
        """Take a part of each row's tokens, and the token before it from the rank that has it."""
        self.tokens = tokens

    def forward(self, x: Tensor, mask: Mask, cache: KVCache | None = None) -> Tensor:
        """Shift ``x`` (B, T, C), whose mask is that of its attention; a cache has the token before the first."""
        first = self.tokens.last_before(x) if cache is None else cache.last_before(self.name, x)
        before = torch.cat([first, x[:, :-1]], 1)
        follows = self.tokens.part(mask.cached(_follows, x.device))[..., None]
        return x + self.scale(before * follows)


def _follows(mask: Mask, device: torch.device) -> Tensor:
    """Whether each token goes on a text, (1 or B, T)."""
    position = torch.arange(mask.past, mask.length, device=device)
    return mask.visible(position, position - 1, None).view(-1, len(position))
