"""Which keys are visible to each query, described by token, so that no implementation needs a matrix of all pairs.

Shape letters: B batch, H heads, T queries, S keys (the cached ones and the queries' own), N documents of a row at most.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from src.nn.cache import KeyPositions

Made = TypeVar("Made")


def padding_mask(attention_mask: Tensor | None) -> Tensor | None:
    """(B, S) with 1 at real tokens to a boolean (B, 1, 1, S), true where a key is visible."""
    return None if attention_mask is None else attention_mask.bool()[:, None, None, :]


@dataclass(frozen=True)
class AttentionSpan:
    """How far the heads of a layer look, and what becomes of their scores. Plain values: equal spans have equal masks.

    Args:
        window: how many tokens before the query, and behind it if the mask is not causal, are visible; None for all.
        dilation: of each head, or empty for 1: only every d-th token is visible, and the window reaches d times as far
            (Beltagy et al. 2020, section 3.1).
        alibi_slopes: of each head, what is taken off the score for each token of distance (ALiBi, Press et al. 2021);
            empty for nothing.
        softcap: what no score exceeds: each is ``c · tanh(score / c)`` (Gemma 2, section 2); None for no bound.
    """

    window: int | None = None
    dilation: tuple[int, ...] = ()
    alibi_slopes: tuple[float, ...] = ()
    softcap: float | None = field(default=None, compare=False)  # no mask depends on it

    @property
    def tokens(self) -> int | None:
        """The distance of the farthest visible token of any head; None without a window."""
        return None if self.window is None else self.window * max(self.dilation, default=1)


@dataclass(frozen=True)
class GlobalTokens:
    """The tokens that attend to all others and are visible to all (Beltagy et al. 2020, section 3.1).

    Args:
        flags: boolean (B, T), true at these.
        index: (B, G), their positions in each row; 0 where a row has fewer.
        valid: boolean (B, G), false there.
    """

    flags: Tensor
    index: Tensor
    valid: Tensor

    @classmethod
    def at(cls, positions: list[int], input_ids: Tensor, attention_mask: Tensor | None) -> "GlobalTokens":
        """The same positions in each row, without those that are padding or behind the end."""
        batch, length = input_ids.shape
        inside = torch.tensor([p for p in positions if p < length], dtype=torch.long, device=input_ids.device)
        index = inside.expand(batch, -1)
        valid = torch.ones_like(index, dtype=torch.bool)
        if attention_mask is not None:
            valid = attention_mask.bool().gather(1, index)
        flags = torch.zeros_like(input_ids, dtype=torch.bool).scatter(1, index, valid)
        return cls(flags, index, valid)

    @classmethod
    def where(cls, global_attention_mask: Tensor, attention_mask: Tensor | None) -> "GlobalTokens":
        """Those at 1 in a mask (B, T), without padding."""
        flags = global_attention_mask.bool()
        if attention_mask is not None:
            flags = flags & attention_mask.bool()
        most = int(flags.sum(1).max())
        valid, index = flags.to(torch.uint8).sort(dim=1, descending=True, stable=True)
        valid = valid[:, :most].bool()
        return cls(flags, index[:, :most] * valid, valid)


@dataclass(frozen=True)
class Packing:
    """Rows that documents fill without padding, end to end.

    Args:
        starts: (B, N), where each document of a row begins, the first at 0; T in a row that has fewer.
        longest: tokens of a document at most.
    """

    starts: Tensor
    longest: int

    def lengths(self, length: int) -> Tensor:
        """The tokens of each document in rows of a length, (B, N); 0 where a row has fewer."""
        return self.starts.diff(append=self.starts.new_full((len(self.starts), 1), length))

    def documents(self, length: int) -> Tensor:
        """The number of each token's document, (B, T)."""
        index = torch.arange(length, device=self.starts.device).expand(len(self.starts), -1)
        return torch.searchsorted(self.starts, index.contiguous(), right=True) - 1


@dataclass(frozen=True)
class Mask:
    """What is visible in one forward pass, whatever the layer.

    With a window or a causal mask a token always sees itself, even padding: so every row has a key, the output at
    padding is finite, and nothing reads it.

    Args:
        length: how many tokens there are, those in a cache among them (S).
        causal: whether a token sees only itself and those before it.
        past: how many tokens are before the first query, in a cache.
        attention_mask: (B, S), 1 at real tokens and 0 at padding.
        documents: (B, S), the number of each token's document: tokens of others are hidden.
        packing: where these begin, if they fill their rows: each is then attended to by itself.
        global_tokens: visible to all.
        bias: gives what is added to the scores (H, T, S) from the distances (1, T, S) of queries to keys.
    """

    length: int
    causal: bool = False
    past: int = 0
    attention_mask: Tensor | None = None
    documents: Tensor | None = None
    packing: Packing | None = None
    global_tokens: GlobalTokens | None = None
    bias: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        # not a field: a copy with other fields, such as FSDP makes in another precision, begins with an empty one
        self.__dict__["_cache"] = {}

    def cached(self, make: Callable[..., Made], *arguments: Hashable) -> Made:
        """Return ``make(self, *arguments)``, computed once for all layers that ask with equal arguments.

        Args:
            make: a function without a closure, so that its result depends on the key alone.
            arguments: plain values; a tensor would be compared by its identity.
        """
        assert make.__closure__ is None, "what is made must depend on the arguments alone"
        if (
            torch.compiler.is_compiling()
        ):  # a graph would be guarded by what is in the cache, and compiled for each state
            return make(self, *arguments)
        cache: dict[Hashable, Any] = self.__dict__["_cache"]
        key = (make, *arguments)
        if key not in cache:
            cache[key] = make(self, *arguments)
        return cache[key]

    def visible(
        self, query: Tensor, key: Tensor, window: int | None, dilation: int | Tensor = 1, row: Any = slice(None)
    ) -> Tensor:
        """Whether a query sees a key, global tokens apart.

        Args:
            query: positions of queries among the S tokens, of any shape.
            key: positions of keys, broadcast with ``query``; they may lie outside.
            window: see :class:`AttentionSpan`.
            dilation: of these heads, broadcast with both.
            row: of the batch; by default all, which then are the first dimension of the result.

        Returns:
            Boolean, of the broadcast shape; with the batch before it where rows differ.
        """
        distance = query - key
        visible = (key >= 0) & (key < self.length)
        if self.causal:
            visible = visible & (distance >= 0)
        if window is not None:
            visible = visible & (distance.abs() <= window * dilation)
            if not isinstance(dilation, int) or dilation > 1:
                visible = visible & (distance % dilation == 0)
        key_inside = key.clamp(0, self.length - 1)
        if self.attention_mask is not None:
            visible = visible & self.attention_mask.bool()[row, key_inside]
        if self.documents is not None:
            query_inside = query.clamp(max=self.length - 1)
            visible = visible & (self.documents[row, query_inside] == self.documents[row, key_inside])
        return visible | (distance == 0)

    def matrix(
        self, span: AttentionSpan, dtype: torch.dtype, device: torch.device, keys: KeyPositions | None = None
    ) -> Tensor | None:
        """The mask of :func:`scaled_dot_product_attention`: the visible pairs, or a bias for the score of each.

        Args:
            span: of the layer.
            dtype: of the queries.
            device: of the queries.
            keys: the positions of the keys at hand; None for all S in order.

        Returns:
            Broadcast to (B, H, T, S): boolean, or what is added to the scores, -inf where a key is hidden. None where
            all keys are visible, as to a single query behind a cache, or only the causal mask hides any.
        """
        plain = self.documents is None and self.global_tokens is None and self.bias is None
        if plain and span == AttentionSpan():
            if not self.causal:
                return padding_mask(self.attention_mask)
            if self.attention_mask is None and self.past in (0, self.length - 1):
                return None
        return self.cached(Mask._matrix, span, dtype, device, keys)

    def _matrix(
        self, span: AttentionSpan, dtype: torch.dtype, device: torch.device, keys: KeyPositions | None
    ) -> Tensor:
        query = torch.arange(self.past, self.length, device=device)[None, :, None]
        key = (torch.arange(self.length, device=device) if keys is None else keys.tensor(device))[None, None, :]
        dilation = torch.tensor(span.dilation or (1,), device=device)[:, None, None]
        visible = self.visible(query, key, span.window, dilation)
        if self.global_tokens is not None:
            visible = visible | self.global_tokens.flags[:, None, None, :]
        if self.bias is not None:
            return self.bias(query - key).to(dtype).masked_fill(~visible, -torch.inf)
        if not span.alibi_slopes:
            return visible
        return alibi_bias(span.alibi_slopes, query - key, dtype).masked_fill(~visible, -torch.inf)


def alibi_bias(slopes: tuple[float, ...], distance: Tensor, dtype: torch.dtype) -> Tensor:
    """What ALiBi adds to each score, ``-slope · |i - j|`` (Press et al. 2021): (1, T, S) distances to (H, T, S)."""
    return (-torch.tensor(slopes, device=distance.device)[:, None, None] * distance.abs()).to(dtype)
