"""Multi-head attention (Vaswani et al. 2017, section 3.2).

Shape letters: B batch, H heads, T queries, S keys, C = d_model, D = C / H.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from src.nn.cache import KVCache


def padding_mask(attention_mask: Tensor | None) -> Tensor | None:
    """(B, S) with 1 at real tokens to a boolean (B, 1, 1, S) that is true where a key may be seen."""
    return None if attention_mask is None else attention_mask.bool()[:, None, None, :]


def causal_mask(n_queries: int, n_keys: int, attention_mask: Tensor | None = None) -> Tensor:
    """Which keys each query may see: itself and what stands before it, and no padding.

    The queries are the last ``n_queries`` of the ``n_keys`` positions, so that a cache may hold those before them.

    Args:
        attention_mask: (B, S), 1 at real tokens. Padding is hidden from every query except itself, so that no row is
            without a key: the output at padding is finite, and nothing reads it.

    Returns:
        Boolean, (1, 1, T, S), or (B, 1, T, S) with an attention mask; true where the key may be seen.
    """
    device = None if attention_mask is None else attention_mask.device
    query = torch.arange(n_keys - n_queries, n_keys, device=device)[:, None]
    key = torch.arange(n_keys, device=device)
    visible = (key <= query)[None, None]
    if attention_mask is not None:
        visible = visible & (attention_mask.bool()[:, None, None, :] | (key == query))
    return visible


class _Attention(nn.Module):
    """What self- and cross-attention share: the heads, the attention itself and the output projection."""

    def __init__(self, d_model: int, n_heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model {d_model} is not divisible by n_heads {n_heads}")
        self.head_dim = d_model // n_heads
        self.dropout = dropout
        self.out = nn.Linear(d_model, d_model, bias=bias)

    def _heads(self, projected: Tensor, n: int) -> tuple[Tensor, ...]:
        """(B, T, H·n·D) to ``n`` tensors (B, H, T, D).

        Head by head in the projection's rows, not query by query: a slice of whole rows is a slice of whole heads,
        which is what tensor parallelism cuts along.
        """
        batch, seq, _ = projected.shape
        return projected.view(batch, seq, -1, n, self.head_dim).transpose(1, 2).unbind(3)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        y = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=is_causal)
        return self.out(y.transpose(1, 2).flatten(2))

    def _weigh(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        """The weights that :meth:`_attend` gives the values: the fast kernels do not give them out."""
        scores = q @ k.transpose(2, 3) * self.head_dim**-0.5
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1)


class SelfAttention(_Attention):
    """Queries, keys and values from one sequence, by one matrix product."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__(d_model, n_heads, dropout, bias)
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=bias)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, is_causal: bool = False, cache: KVCache | None = None
    ) -> Tensor:
        """Attend.

        Args:
            x: (B, T, C).
            mask: boolean, broadcast to (B, H, T, S), true where a key may be seen. S is T, or the length of the cache
                after ``x``.
            is_causal: the causal mask without a tensor, for the fastest kernel; not together with ``mask``.
            cache: holds the keys and values of earlier tokens; those of ``x`` are added to it.

        Returns:
            (B, T, C).
        """
        q, k, v = self._heads(self.qkv(x), 3)
        if cache is not None:
            k, v = cache.append(k, v)
        return self._attend(q, k, v, mask, is_causal)

    def weights(self, x: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """How much each query looks at each key, (B, H, T, T), rows that sum to 1: to look at, not to train."""
        q, k, _ = self._heads(self.qkv(x), 3)
        return self._weigh(q, k, causal_mask(x.shape[1], x.shape[1]).to(x.device) if is_causal else mask)


class CrossAttention(_Attention):
    """Queries from one sequence, keys and values from another, the memory."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__(d_model, n_heads, dropout, bias)
        self.q = nn.Linear(d_model, d_model, bias=bias)
        self.kv = nn.Linear(d_model, 2 * d_model, bias=bias)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Attend from ``x`` (B, T, C) to ``memory`` (B, S, C), with a mask as in :class:`SelfAttention`.

        A cache is filled from ``memory`` once and read from then on: the memory does not change while decoding.
        Where ``x`` has k rows for each of the memory's, in order, as in beam search, they read it as k·T queries of
        one row: nothing is repeated.
        """
        shape = x.shape
        (q,) = self._heads(self.q(x.reshape(memory.shape[0], -1, shape[2])), 1)
        if cache is None or not cache.length:
            k, v = self._heads(self.kv(memory), 2)
            if cache is not None:
                k, v = cache.append(k, v)
        else:
            k, v = cache.keys_values()
        return self._attend(q, k, v, mask, is_causal=False).view(shape)

    def weights(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """As :meth:`SelfAttention.weights`, (B, H, T, S)."""
        (q,), (k, _) = self._heads(self.q(x), 1), self._heads(self.kv(memory), 2)
        return self._weigh(q, k, mask)
