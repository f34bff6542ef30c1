"""Which keys each query may see, told by token, so that no implementation needs a matrix of all pairs.

Shape letters: B batch, H heads, T queries, S keys (the cached ones and the queries' own).
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from src.nn.cache import KeyPositions

Made = TypeVar("Made")


def padding_mask(attention_mask: Tensor | None) -> Tensor | None:
    """(B, S) with 1 at real tokens to a boolean (B, 1, 1, S) that is true where a key may be seen."""
    return None if attention_mask is None else attention_mask.bool()[:, None, None, :]


@dataclass(frozen=True)
class AttentionSpan:
    """How far the heads of a layer look, and what distance costs them. Plain values: equal reaches have equal masks.

    Args:
        window: how many tokens before the query, and if the mask is not causal behind it, may be seen; all if null.
        dilation: of each head, or empty for 1: only every so many-th token is seen, and the window reaches as many
            times as far (Beltagy et al. 2020, section 3.1).
        slopes: of each head, what a token of distance costs (ALiBi, Press et al. 2021); nothing if empty.
    """

    window: int | None = None
    dilation: tuple[int, ...] = ()
    slopes: tuple[float, ...] = ()

    @property
    def tokens(self) -> int | None:
        """The distance of the farthest token that any head sees; null without a window."""
        return None if self.window is None else self.window * max(self.dilation, default=1)


@dataclass(frozen=True)
class GlobalTokens:
    """The tokens that see all others and are seen by all (Beltagy et al. 2020, section 3.1).

    Args:
        flags: boolean (B, T), true at these.
        index: (B, G), where they stand in each row; 0 at places that a row does not need.
        valid: boolean (B, G), false at those places.
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
class Mask:
    """What may be seen in one forward pass, whatever the layer.

    A token always sees itself where there is a window or a causal mask, be it padding: so no row is without a key, the
    output at padding is finite, and nothing reads it.

    Args:
        length: how many tokens there are, those in a cache among them (S).
        causal: whether no token sees what is behind it.
        past: how many tokens stand before the first query, in a cache.
        attention_mask: (B, S), 1 at real tokens and 0 at padding.
        documents: (B, S), the number of each token's document: tokens of another are not seen.
        global_tokens: seen by all.
    """

    length: int
    causal: bool = False
    past: int = 0
    attention_mask: Tensor | None = None
    documents: Tensor | None = None
    global_tokens: GlobalTokens | None = None

    def __post_init__(self) -> None:
        # no field: a copy with other fields, such as FSDP makes in another precision, has made nothing yet
        self.__dict__["_made"] = {}

    def cached(self, make: Callable[..., Made], *arguments: Hashable) -> Made:
        """Return ``make(self, *arguments)``, made once for all layers that ask with equal arguments.

        Args:
            make: a function without a closure, so that what it makes can depend on nothing but what is the key.
            arguments: plain values; a tensor would be told apart by its identity.
        """
        assert make.__closure__ is None, "what is made must depend on the arguments alone"
        made: dict[Hashable, Any] = self.__dict__["_made"]
        key = (make, *arguments)
        if key not in made:
            made[key] = make(self, *arguments)
        return made[key]

    def visible(
        self, query: Tensor, key: Tensor, window: int | None, dilation: int | Tensor = 1, row: Any = slice(None)
    ) -> Tensor:
        """Whether a query sees a key, global tokens apart.

        Args:
            query: places of queries among the S tokens, of any shape.
            key: places of keys, broadcast with ``query``; they may lie outside.
            window: see :class:`AttentionSpan`.
            dilation: of these heads, broadcast with both.
            row: of the batch; all if left out, which then are the first dimension of what is returned.

        Returns:
            Boolean, of the broadcast shape; with the batch before it where rows differ.
        """
        distance = query - key
        inside = (key >= 0) & (key < self.length)
        seen = inside & (distance >= 0) if self.causal else inside
        if window is not None:
            seen = seen & (distance.abs() <= window * dilation)
            if not isinstance(dilation, int) or dilation > 1:
                seen = seen & (distance % dilation == 0)
        held = key.clamp(0, self.length - 1)
        if self.attention_mask is not None:
            seen = seen & self.attention_mask.bool()[row, held]
        if self.documents is not None:
            asking = query.clamp(max=self.length - 1)
            seen = seen & (self.documents[row, asking] == self.documents[row, held])
        return seen | (distance == 0)

    def matrix(
        self, span: AttentionSpan, dtype: torch.dtype, device: torch.device, keys: KeyPositions | None = None
    ) -> Tensor | None:
        """For :func:`scaled_dot_product_attention`: which pairs are seen, or what each pair is given.

        Args:
            span: of the layer.
            dtype: of the queries.
            device: of the queries.
            keys: where the keys at hand stand; all S in order if None.

        Returns:
            Broadcast to (B, H, T, S): boolean, or with slopes a number to add. Null where all is seen, as by a single
            query behind a cache, or where only the causal mask hides anything.
        """
        if span == AttentionSpan() and self.documents is None and self.global_tokens is None:
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
        seen = self.visible(query, key, span.window, dilation)
        if self.global_tokens is not None:
            seen = seen | self.global_tokens.flags[:, None, None, :]
        if not span.slopes:
            return seen
        return alibi_bias(span.slopes, query - key, dtype).masked_fill(~seen, -torch.inf)


def alibi_bias(slopes: tuple[float, ...], distance: Tensor, dtype: torch.dtype) -> Tensor:
    """What ALiBi adds to the score of each pair (Press et al. 2021): (1, T, S) distances to (H, T, S)."""
    return (-torch.tensor(slopes, device=distance.device)[:, None, None] * distance.abs()).to(dtype)
