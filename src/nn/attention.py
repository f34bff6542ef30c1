"""Multi-head attention (Vaswani et al. 2017, section 3.2): ``softmax(q k^T / sqrt(D)) v`` in each head.

Shape letters: B batch, H heads, T queries, S keys, C = d_model, D = C / H, G global tokens.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from src.nn.cache import KeyPositions, KVCache
from src.nn.cpu import attend
from src.nn.kernels import KERNELS
from src.nn.masks import AttentionSpan, Mask, padding_mask
from src.nn.positions import rotary_angles, rotate


class _Attention(nn.Module):
    """What self- and cross-attention share: the heads, and the output projection."""

    def __init__(self, d_model: int, n_heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model {d_model} is not divisible by n_heads {n_heads}")
        self.head_dim = d_model // n_heads
        self.dropout = dropout
        self.out = nn.Linear(d_model, d_model, bias=bias)

    def _heads(self, projected: Tensor, n: int) -> tuple[Tensor, ...]:
        """(B, T, H·n·D) to ``n`` tensors (B, H, T, D).

        The projection's rows go head by head, not first all queries: a slice of whole rows is a slice of whole heads,
        along which tensor parallelism shards.
        """
        batch, seq, _ = projected.shape
        return projected.view(batch, seq, -1, n, self.head_dim).transpose(1, 2).unbind(3)

    def _merge(self, y: Tensor) -> Tensor:
        """Concatenate the heads and project: (B, H, T, D) to (B, T, C)."""
        return self.out(y.transpose(1, 2).flatten(2))

    @property
    def _dropout_now(self) -> float:
        return self.dropout if self.training else 0.0

    def _softmax(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        """The attention weights ``softmax(q k^T / sqrt(D))``, (B, H, T, S), which the fast kernels do not return.

        Args:
            mask: boolean, true where a key is visible; or numbers to add to the scores; None if all are visible.
        """
        scores = q @ k.transpose(2, 3) / self.head_dim**0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        return scores.softmax(-1)


class SelfAttention(_Attention):
    """Queries, keys and values from one sequence, by one matrix product.

    ``q, k, v`` (B, H, T, D) are the heads of ``x W_qkv``; each head is ``softmax(q k^T / sqrt(D)) v`` (B, H, T, D); the
    heads side by side (B, T, C), times ``W_out``, are the output.

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
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=bias)

    def shard_heads(self, rank: int, world_size: int) -> None:
        """Keep the dilation and ALiBi slopes of this rank's heads alone, of equally many for each rank."""
        n_heads = self.out.in_features // self.head_dim // world_size
        mine = slice(rank * n_heads, (rank + 1) * n_heads)
        dilation, slopes = self.span.dilation[mine], self.span.alibi_slopes[mine]
        self.span = replace(self.span, dilation=dilation, alibi_slopes=slopes)

    def forward(self, x: Tensor, mask: Mask, cache: KVCache | None = None) -> Tensor:
        """Attend.

        Args:
            x: (B, T, C).
            mask: which keys are visible: of ``x``, or of the tokens in the cache and ``x``.
            cache: holds the keys and values of earlier tokens; those of ``x`` are added to it.

        Returns:
            (B, T, C).
        """
        return self._merge(self._attend(x, mask, cache))

    def _attend(self, x: Tensor, mask: Mask, cache: KVCache | None = None) -> Tensor:
        """The heads' outputs, (B, H, T, D)."""
        q, k, v = self._queries_keys_values(x, mask)
        past: tuple[KeyPositions, ...] = ()
        if cache is not None:
            k, v, positions = cache.append(k, v)
            past = (positions,) if mask.past else ()
        return self.kernel(q, k, v, mask, self.span, self._dropout_now, *past)

    def _queries_keys_values(self, x: Tensor, mask: Mask) -> tuple[Tensor, ...]:
        """Of each head, (B, H, T, D); queries and keys with their positions in them if these are rotary."""
        q, k, v = self._heads(self.qkv(x), 3)
        if self.rotary:
            angles = mask.cached(_angles, self.head_dim, x.device)
            q, k = rotate(q, *angles), rotate(k, *angles)
        return q, k, v

    def weights(self, x: Tensor, mask: Mask) -> Tensor:
        """The attention weights, (B, H, T, T), whose rows sum to 1: to look at, not to train."""
        q, k, _ = self._queries_keys_values(x, mask)
        matrix = mask.matrix(self.span, q.dtype, q.device)
        if matrix is None and mask.causal:
            matrix = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        return self._softmax(q, k, matrix)


def _angles(mask: Mask, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return rotary_angles(torch.arange(mask.past, mask.length, device=device), head_dim)


class CrossAttention(_Attention):
    """Queries from one sequence, keys and values from another, the memory (section 3.2.3, first item)."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__(d_model, n_heads, dropout, bias)
        self.q = nn.Linear(d_model, d_model, bias=bias)
        self.kv = nn.Linear(d_model, 2 * d_model, bias=bias)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Attend from ``x`` (B, T, C) to ``memory`` (B, S, C).

        A cache is filled from ``memory`` once and read from then on: the memory does not change while decoding.
        Where ``x`` has k rows for each of the memory's, in order, as in beam search, they read it as k·T queries of
        one row: nothing is repeated.

        Args:
            x: the sequence of the queries.
            memory: the sequence of the keys and values.
            mask: boolean, broadcast to (B, H, T, S), true where a key is visible.
            cache: of the memory's keys and values.
        """
        shape = x.shape
        (q,) = self._heads(self.q(x.reshape(memory.shape[0], -1, shape[2])), 1)
        if cache is not None and cache.length:
            k, v = cache.keys_values()
        else:
            k, v = self._heads(self.kv(memory), 2)
            if cache is not None:
                k, v, _ = cache.append(k, v)
        y = attend(q, k, v, attn_mask=mask, dropout_p=self._dropout_now)
        return self._merge(y).view(shape)

    def weights(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """As :meth:`SelfAttention.weights`, (B, H, T, S)."""
        (q,), (k, _) = self._heads(self.q(x), 1), self._heads(self.kv(memory), 2)
        return self._softmax(q, k, mask)


class GlobalSelfAttention(SelfAttention):
    """A window with global tokens, which have projections of their own (Beltagy et al. 2020, section 3.1).

    The global tokens, those of ``mask.global_tokens``, attend to all tokens by the other projections. All tokens attend
    to the global ones too, by the projections of their window.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        kernel: str = "dense",
        span: AttentionSpan = AttentionSpan(),  # noqa: B008  frozen
    ) -> None:
        super().__init__(d_model, n_heads, dropout, bias, kernel, span)
        self.global_q = nn.Linear(d_model, d_model, bias=bias)
        self.global_kv = nn.Linear(d_model, 2 * d_model, bias=bias)

    def forward(self, x: Tensor, mask: Mask, cache: KVCache | None = None) -> Tensor:
        """Attend: (B, T, C) to the same. There is no cache: this is for encoders."""
        assert cache is None
        y = self._attend(x, mask)
        if mask.global_tokens is not None and mask.global_tokens.index.shape[1]:
            q, k, v = self._global_queries_keys_values(x, mask.global_tokens.index)
            visible = padding_mask(mask.attention_mask)
            of_global = scaled_dot_product_attention(q, k, v, attn_mask=visible, dropout_p=self._dropout_now)
            y = _with_global(y, of_global, mask.global_tokens.flags)
        return self._merge(y)

    def weights(self, x: Tensor, mask: Mask) -> Tensor:
        """As :meth:`SelfAttention.weights`, with those of the global tokens in their rows."""
        weights = super().weights(x, mask)
        if mask.global_tokens is not None and mask.global_tokens.index.shape[1]:
            q, k, _ = self._global_queries_keys_values(x, mask.global_tokens.index)
            of_global = self._softmax(q, k, padding_mask(mask.attention_mask))
            weights = _with_global(weights, of_global, mask.global_tokens.flags)
        return weights

    def _global_queries_keys_values(self, x: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        """Queries of the global tokens, (B, H, G, D), and the keys and values of all, (B, H, T, D)."""
        (q,) = self._heads(self.global_q(x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))), 1)
        k, v = self._heads(self.global_kv(x), 2)
        return q, k, v


def _with_global(of_all: Tensor, of_global: Tensor, flags: Tensor) -> Tensor:
    """The rows of all tokens, (B, H, T, ...), with those of the global ones, (B, H, G, ...), at their positions."""
    # the number of each global token; of the others it is not used
    number = (flags.cumsum(1) - 1).clamp(min=0)[:, None, :, None]
    return of_global.gather(2, number.expand_as(of_all)).where(flags[:, None, :, None], of_all)
