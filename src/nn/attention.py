"""Multi-head attention (Vaswani et al. 2017, section 3.2).

Shape letters: B batch, H heads, T queries, S keys, C = d_model, D = C / H.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from src.nn.cache import KeyPositions, KVCache
from src.nn.kernels import KERNELS
from src.nn.linear import Linear
from src.nn.masks import AttentionSpan, Mask
from src.nn.matmul_attention import attend
from src.nn.positions import rotary_angles, rotate


class _Attention(nn.Module):
    """What self- and cross-attention share: the heads, and the output projection."""

    def __init__(self, d_model: int, n_heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model {d_model} is not divisible by n_heads {n_heads}")
        self.head_dim = d_model // n_heads
        self.dropout = dropout
        self.out = Linear(d_model, d_model, bias=bias)

    def _heads(self, projected: Tensor, n: int) -> tuple[Tensor, ...]:
        """(B, T, H·n·D) to ``n`` tensors (B, H, T, D).

        Head by head in the projection's rows, not query by query: a slice of whole rows is a slice of whole heads,
        which is what tensor parallelism cuts along.
        """
        batch, seq, _ = projected.shape
        return projected.view(batch, seq, -1, n, self.head_dim).transpose(1, 2).unbind(3)

    def _merge(self, y: Tensor) -> Tensor:
        """(B, H, T, D) to (B, T, C)."""
        return self.out(y.transpose(1, 2).flatten(2))

    @property
    def _dropout_now(self) -> float:
        return self.dropout if self.training else 0.0

    def _weigh(self, q: Tensor, k: Tensor, visible: Tensor | None) -> Tensor:
        """The weights that the values get, (B, H, T, S): the fast kernels do not give them out.

        Args:
            visible: boolean, true where a key may be seen; or numbers to add to the scores; all is seen if null.
        """
        scores = q @ k.transpose(2, 3) * self.head_dim**-0.5
        if visible is not None:
            scores = scores.masked_fill(~visible, -torch.inf) if visible.dtype == torch.bool else scores + visible
        return scores.softmax(-1)


class SelfAttention(_Attention):
    """Queries, keys and values from one sequence, by one matrix product.

    Args:
        d_model: width of the residual stream.
        n_heads: number of heads.
        dropout: of the attention weights.
        bias: whether the projections have one.
        kernel: name in :data:`src.nn.kernels.KERNELS`.
        span: how far each head looks.
        rotary: whether queries and keys are rotated by their positions.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        kernel: str = "dense",
        span: AttentionSpan = AttentionSpan(),  # noqa: B008  frozen
        rotary: bool = False,
    ) -> None:
        super().__init__(d_model, n_heads, dropout, bias)
        self.kernel, self.span, self.rotary = KERNELS[kernel], span, rotary
        self.qkv = Linear(d_model, 3 * d_model, bias=bias)

    def shard_heads(self, rank: int, world_size: int) -> None:
        """Of what is set for each head, keep the heads of one of equal parts: those that a rank computes with."""
        dilation, slopes = self.span.dilation, self.span.slopes
        n_heads = self.out.in_features // self.head_dim // world_size
        mine = slice(rank * n_heads, (rank + 1) * n_heads)
        self.span = replace(self.span, dilation=dilation[mine], slopes=slopes[mine])

    def forward(self, x: Tensor, mask: Mask, cache: KVCache | None = None) -> Tensor:
        """Attend.

        Args:
            x: (B, T, C).
            mask: which keys may be seen: of ``x``, or of the tokens in the cache and ``x``.
            cache: holds the keys and values of earlier tokens; those of ``x`` are added to it.

        Returns:
            (B, T, C).
        """
        return self._merge(self._attend(x, mask, cache))

    def _attend(self, x: Tensor, mask: Mask, cache: KVCache | None = None) -> Tensor:
        """The heads' outputs, (B, H, T, D)."""
        q, k, v = self._queries_keys_values(x, mask)
        behind: tuple[KeyPositions, ...] = ()
        if cache is not None:
            k, v, positions = cache.append(k, v)
            behind = (positions,) if mask.past else ()
        return self.kernel(q, k, v, mask, self.span, self._dropout_now, *behind)

    def _queries_keys_values(self, x: Tensor, mask: Mask) -> tuple[Tensor, ...]:
        """Of each head, (B, H, T, D), with their positions in them if these are rotary."""
        q, k, v = self._heads(self.qkv(x), 3)
        if self.rotary:
            angles = mask.cached(_angles, self.head_dim, x.device)
            q, k = rotate(q, *angles), rotate(k, *angles)
        return q, k, v

    def weights(self, x: Tensor, mask: Mask) -> Tensor:
        """How much each query looks at each key, (B, H, T, T), rows that sum to 1: to look at, not to train."""
        q, k, _ = self._queries_keys_values(x, mask)
        visible = mask.matrix(self.span, q.dtype, q.device)
        if visible is None and mask.causal:
            visible = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        return self._weigh(q, k, visible)


def _angles(mask: Mask, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return rotary_angles(torch.arange(mask.past, mask.length, device=device), head_dim)


class CrossAttention(_Attention):
    """Queries from one sequence, keys and values from another, the memory."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__(d_model, n_heads, dropout, bias)
        self.q = Linear(d_model, d_model, bias=bias)
        self.kv = Linear(d_model, 2 * d_model, bias=bias)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Attend from ``x`` (B, T, C) to ``memory`` (B, S, C).

        A cache is filled from ``memory`` once and read from then on: the memory does not change while decoding.
        Where ``x`` has k rows for each of the memory's, in order, as in beam search, they read it as k·T queries of
        one row: nothing is repeated.

        Args:
            x: what asks.
            memory: what is looked at.
            mask: boolean, broadcast to (B, H, T, S), true where a key may be seen.
            cache: of the memory's keys and values.
        """
        shape = x.shape
        (q,) = self._heads(self.q(x.reshape(memory.shape[0], -1, shape[2])), 1)
        if cache is None or not cache.length:
            k, v = self._heads(self.kv(memory), 2)
            if cache is not None:
                k, v, _ = cache.append(k, v)
        else:
            k, v = cache.keys_values()
        y = attend(q, k, v, attn_mask=mask, dropout_p=self._dropout_now)
        return self._merge(y).view(shape)

    def weights(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """As :meth:`SelfAttention.weights`, (B, H, T, S)."""
        (q,), (k, _) = self._heads(self.q(x), 1), self._heads(self.kv(memory), 2)
        return self._weigh(q, k, mask)
