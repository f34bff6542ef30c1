"""Multi-head attention (Vaswani et al. 2017, section 3.2): ``softmax(q k^T / sqrt(D)) v`` in each head.

Shape letters: B batch, H heads, G of them of keys and values, T queries, S keys, C = d_model, D width of a head, N
global tokens.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from src.nn.cache import KeyPositions, KVCache
from src.nn.config import BlockConfig
from src.nn.cpu import attend, capped_attention, repeat_heads
from src.nn.kernels import KERNELS
from src.nn.masks import Mask, padding_mask
from src.nn.positions import Rope, rotate
from src.nn.token_shards import TokenShards


class HeadNorm(nn.RMSNorm):
    """Bring each head's queries or keys (B, H, T, D) to a root mean square of 1, times a weight (D)."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)  # which is that of the values; float32 beside bfloat16 has no fast kernel
        return rms_norm(x, self.normalized_shape, weight, self.eps)


class ValueEmbedding(nn.Embedding):
    """A vector for each token, (B, T) to (B, T, G·D), that a block adds to its values (Jordan et al. 2024)."""


class _Attention(nn.Module):
    """What self- and cross-attention share: the heads, and the output projection.

    With grouped queries (Ainslie et al. 2023) there are G heads of keys and values, each for the R = H / G heads of
    queries of its group; with one, it is multi-query attention (Shazeer 2019).
    """

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.head_dim = config.head_width
        self.n_kv_heads = config.n_kv_heads or config.n_heads
        self.dropout = config.attention_dropout
        self.out = nn.Linear(config.n_heads * self.head_dim, config.d_model, bias=config.bias)
        # of queries and keys in each head (Henry et al. 2020; Dehghani et al. 2023), with one weight for all heads
        norms = [HeadNorm(self.head_dim, config.norm_eps) if config.qk_norm else nn.Identity() for _ in range(2)]
        self.q_norm, self.k_norm = norms

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

    def _softmax(self, q: Tensor, k: Tensor, mask: Tensor | None, softcap: float | None = None) -> Tensor:
        """The attention weights ``softmax(q k^T / sqrt(D))``, (B, H, T, S), which the fast kernels do not return.

        Args:
            mask: boolean, true where a key is visible; or numbers to add to the scores; None if all are visible.
            softcap: see :class:`src.nn.masks.AttentionSpan`.
        """
        scores = q @ repeat_heads(k, q.shape[1]).transpose(2, 3) / self.head_dim**0.5
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        return scores.softmax(-1)


class SelfAttention(_Attention):
    """Queries, keys and values from one sequence, by one matrix product.

    ``q, k, v`` (B, H, T, D) are the heads of ``x W_qkv``; each head is ``softmax(q k^T / sqrt(D)) v`` (B, H, T, D); the
    heads side by side (B, T, C), times ``W_out``, are the output.

    Args:
        config: its shape and choices.
        layer: the number of its block, on which the window may depend.
    """

    def __init__(self, config: BlockConfig, layer: int = 0) -> None:
        super().__init__(config)
        self.span, self.rope = config.span(layer), config.rope(layer)
        # blocks that see all tokens, among others with a window, have no blocks of keys to skip
        windowless = config.attention == "sliding_window" and self.span.window is None
        self.kernel = KERNELS["dense" if windowless else config.attention]
        n_rows = (config.n_heads + 2 * self.n_kv_heads) * self.head_dim
        self.qkv = nn.Linear(config.d_model, n_rows, bias=config.bias)
        self.queries_per_key = config.n_heads // self.n_kv_heads
        self.tokens = TokenShards()

    def shard_heads(self, rank: int, world_size: int) -> None:
        """Of the heads that there are, keep the dilation and ALiBi slopes of this rank's, equally many for each."""

        def mine(of_heads: tuple[Any, ...]) -> tuple[Any, ...]:
            n = len(of_heads) // world_size
            return of_heads[rank * n : (rank + 1) * n]

        self.span = replace(self.span, dilation=mine(self.span.dilation), alibi_slopes=mine(self.span.alibi_slopes))

    def shard_tokens(self, tokens: TokenShards) -> None:
        """Take a part of each row's tokens, and attend to all of them with a part of the heads."""
        self.tokens = tokens
        self.shard_heads(tokens.rank, tokens.size)

    def forward(
        self,
        x: Tensor,
        mask: Mask,
        cache: KVCache | None = None,
        values: list[Tensor] | None = None,
        token_values: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            x: (B, T, C).
            mask: which keys are visible: of ``x``, or of the tokens in the cache and ``x``.
            cache: holds the keys and values of earlier tokens; those of ``x`` are added to it.
            values: of the first block, (B, G, T, D), with whose mean the values here are replaced; if it is empty, this
                is the first block, and its values are put into it (value residual: Zhou et al. 2024, section 3.2).
            token_values: (B, T, G·D), added to the values: see :class:`ValueEmbedding`.

        Returns:
            (B, T, C).
        """
        return self._merge(self._attend(x, mask, cache, values, token_values))

    def _attend(
        self,
        x: Tensor,
        mask: Mask,
        cache: KVCache | None = None,
        values: list[Tensor] | None = None,
        token_values: Tensor | None = None,
    ) -> Tensor:
        """The heads' outputs, (B, H, T, D)."""
        q, k, v = self._queries_keys_values(x, mask)
        if values:
            v = (v + values[0].to(v.dtype)) / 2
        elif values is not None:
            values.append(v)
        if token_values is not None:
            v = v + self._heads(self.tokens.to_heads(token_values.to(v.dtype)), 1)[0]
        past: tuple[KeyPositions, ...] = ()
        if cache is not None:
            k, v, positions = cache.append(k, v)
            past = (positions,) if mask.past else ()
        return self.kernel(q, k, v, mask, self.span, self._dropout_now, *past)

    def _queries_keys_values(self, x: Tensor, mask: Mask) -> tuple[Tensor, ...]:
        """Of each head, (B, H, T, D) and twice (B, G, T, D); with their positions in q and k if these are rotary."""
        # the rows of a group are its queries, then its key, then its value: of an ungrouped head q, k, v
        *queries, k, v = self._heads(self.tokens.to_heads(self.qkv(x)), self.queries_per_key + 2)
        q = queries[0] if len(queries) == 1 else torch.stack(queries, 2).flatten(1, 2)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rope is not None:
            angles = mask.cached(_angles, self.rope, x.device)
            q, k = rotate(q, *angles), rotate(k, *angles)
        return q, k, v

    def _merge(self, y: Tensor) -> Tensor:
        return self.out(self.tokens.to_tokens(y.transpose(1, 2).flatten(2)))

    def weights(self, x: Tensor, mask: Mask) -> Tensor:
        """The attention weights, (B, H, T, T), whose rows sum to 1: to look at, not to train."""
        q, k, _ = self._queries_keys_values(x, mask)
        matrix = mask.matrix(self.span, q.dtype, q.device)
        if matrix is None and mask.causal:
            matrix = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        return self._softmax(q, k, matrix, self.span.softcap)


def _angles(mask: Mask, rope: Rope, device: torch.device) -> tuple[Tensor, Tensor]:
    return rope.angles(torch.arange(mask.past, mask.length, device=device))


class CrossAttention(_Attention):
    """Queries from one sequence, keys and values from another, the memory (section 3.2.3, first item)."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__(config)
        self.softcap = config.attention_softcap
        self.q = nn.Linear(config.d_model, config.n_heads * self.head_dim, bias=config.bias)
        self.kv = nn.Linear(config.d_model, 2 * self.n_kv_heads * self.head_dim, bias=config.bias)

    def _queries(self, x: Tensor) -> Tensor:
        """(B, H, T, D)."""
        return self.q_norm(*self._heads(self.q(x), 1))

    def _keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B, G, S, D) of each."""
        k, v = self._heads(self.kv(memory), 2)
        return self.k_norm(k), v

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
        q = self._queries(x.reshape(memory.shape[0], -1, shape[2]))
        if cache is not None and cache.length:
            k, v = cache.keys_values()
        else:
            k, v = self._keys_values(memory)
            if cache is not None:
                k, v, _ = cache.append(k, v)
        if self.softcap is None:
            y = attend(q, k, v, attn_mask=mask, dropout_p=self._dropout_now)
        else:
            y = capped_attention(q, k, v, mask, self._dropout_now, False, self.softcap)
        return self._merge(y).view(shape)

    def weights(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """As :meth:`SelfAttention.weights`, (B, H, T, S)."""
        return self._softmax(self._queries(x), self._keys_values(memory)[0], mask, self.softcap)


class GlobalSelfAttention(SelfAttention):
    """A window with global tokens, which have projections of their own (Beltagy et al. 2020, section 3.1).

    The global tokens, those of ``mask.global_tokens``, attend to all tokens by the other projections. All tokens attend
    to the global ones too, by the projections of their window.
    """

    def __init__(self, config: BlockConfig, layer: int = 0) -> None:
        super().__init__(config, layer)
        self.global_q = nn.Linear(config.d_model, config.n_heads * self.head_dim, bias=config.bias)
        self.global_kv = nn.Linear(config.d_model, 2 * self.n_kv_heads * self.head_dim, bias=config.bias)

    def _attend(self, x: Tensor, mask: Mask, *args: Any, **kwargs: Any) -> Tensor:
        """As in :class:`SelfAttention`, (B, H, T, D), with the outputs of the global tokens in their rows."""
        y = super()._attend(x, mask, *args, **kwargs)
        if mask.global_tokens is not None and mask.global_tokens.index.shape[1]:
            q, k, v = self._global_queries_keys_values(x, mask, mask.global_tokens.index)
            visible, grouped = padding_mask(mask.attention_mask), self.queries_per_key > 1
            of_global = scaled_dot_product_attention(q, k, v, visible, self._dropout_now, enable_gqa=grouped)
            y = _with_global(y, of_global, mask.global_tokens.flags)
        return y

    def weights(self, x: Tensor, mask: Mask) -> Tensor:
        """As :meth:`SelfAttention.weights`, with those of the global tokens in their rows."""
        weights = super().weights(x, mask)
        if mask.global_tokens is not None and mask.global_tokens.index.shape[1]:
            q, k, _ = self._global_queries_keys_values(x, mask, mask.global_tokens.index)
            of_global = self._softmax(q, k, padding_mask(mask.attention_mask))
            weights = _with_global(weights, of_global, mask.global_tokens.flags)
        return weights

    def _global_queries_keys_values(self, x: Tensor, mask: Mask, index: Tensor) -> tuple[Tensor, ...]:
        """Queries of the global tokens, (B, H, N, D), and the keys and values of all, (B, G, T, D)."""
        (q,) = self._heads(self.global_q(x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))), 1)
        k, v = self._heads(self.global_kv(x), 2)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rope is not None:
            cos, sin = mask.cached(_angles, self.rope, x.device)
            q, k = rotate(q, cos[index][:, None], sin[index][:, None]), rotate(k, cos, sin)
        return q, k, v


def _with_global(of_all: Tensor, of_global: Tensor, flags: Tensor) -> Tensor:
    """The rows of all tokens, (B, H, T, ...), with those of the global ones, (B, H, N, ...), at their positions."""
    # the number of each global token; of the others it is not used
    number = (flags.cumsum(1) - 1).clamp(min=0)[:, None, :, None]
    return of_global.gather(2, number.expand_as(of_all)).where(flags[:, None, :, None], of_all)
