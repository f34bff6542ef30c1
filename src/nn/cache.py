"""The keys and values of earlier tokens, so that decoding computes each token once."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class KeyPositions:
    """The positions of the tokens whose keys are at hand, in the order of the keys. Plain values.

    Args:
        start: of the oldest.
        stop: behind the newest.
        roll: how many of the newest lie before the oldest, in a ring buffer.
    """

    start: int
    stop: int
    roll: int = 0

    def tensor(self, device: torch.device | str) -> Tensor:
        """(keys,)."""
        return torch.arange(self.start, self.stop, device=device).roll(self.roll)


class KVCache:
    """One attention layer's keys and values, in buffers of a fixed size that are allocated at the first use.

    The buffers are (batch, heads, size, head_dim), so that what a query of one head reads is contiguous. With a window
    they are ring buffers for the window and one token more: a new token overwrites the one that has left the window.

    Args:
        max_len: how many tokens may come; with a window None for any number.
        window: how far back a query looks; None for all the way.
    """

    def __init__(self, max_len: int | None, window: int | None = None) -> None:
        sizes = [n for n in (max_len, None if window is None else window + 1) if n is not None]
        if not sizes:
            raise ValueError("a cache needs a max_len or a window")
        self.max_len, self.size = max_len, min(sizes)
        self.length = 0  # tokens so far
        self._buffers: list[Tensor] = []  # keys and values
        self._last: dict[str, Tensor] = {}  # the last token, (batch, 1, d_model), of what else a block reads

    @property
    def bytes(self) -> int:
        """The memory of the buffers."""
        return sum(buffer.nbytes for buffer in [*self._buffers, *self._last.values()])

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, KeyPositions]:
        """Add tokens, and return what they may attend to: themselves and the cached ones.

        Args:
            keys: (batch, heads, new, head_dim).
            values: the same.

        Returns:
            Keys and values, (batch, heads, cached, head_dim), in any order, and the positions of their tokens.
        """
        start, new = self.length, keys.shape[2]
        if self.max_len is not None and start + new > self.max_len:
            raise ValueError(f"{start + new} tokens do not fit into a cache of {self.max_len}")
        if not self._buffers:
            batch, heads, _, head_dim = keys.shape
            self._buffers = [x.new_empty(batch, heads, self.size, head_dim) for x in (keys, values)]
        if start + new > self.size:
            return self._overwrite(keys, values)
        self.length += new
        for buffer, x in zip(self._buffers, (keys, values), strict=True):
            buffer[:, :, start : self.length] = x
        return *self.keys_values(), KeyPositions(0, self.length)

    def _overwrite(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, KeyPositions]:
        """:meth:`append` where new tokens overwrite those that have left the window."""
        start, new = self.length, (keys, values)
        self.length += keys.shape[2]
        joined = []
        if keys.shape[2] > 1:  # the first of them attend to what the last overwrite
            slots = torch.arange(max(0, start - self.size), start, device=keys.device) % self.size
            joined = [torch.cat([b[:, :, slots], x], 2) for b, x in zip(self._buffers, new, strict=True)]
        slots = torch.arange(max(start, self.length - self.size), self.length, device=keys.device) % self.size
        for buffer, x in zip(self._buffers, new, strict=True):
            buffer[:, :, slots] = x[:, :, -len(slots) :]
        if joined:
            return *joined, KeyPositions(self.length - joined[0].shape[2], self.length)  # type: ignore[return-value]
        return *self.keys_values(), KeyPositions(self.length - self.size, self.length, self.length % self.size)

    def keys_values(self) -> tuple[Tensor, Tensor]:
        """All that is cached, as views: (batch, heads, cached, head_dim) of each."""
        keys, values = self._buffers
        cached = min(self.length, self.size)
        return keys[:, :, :cached], values[:, :, :cached]

    def last_before(self, name: str, x: Tensor) -> Tensor:
        """Keep the last token of ``x`` (batch, new, d_model) by a name, and return the one before: at first zeros."""
        before = self._last.get(name, torch.zeros_like(x[:, :1]))
        self._last[name] = x[:, -1:].clone()  # not a view, which would keep all of a prompt
        return before

    def reorder(self, rows: Tensor) -> None:
        """Let row i hold what row ``rows[i]`` held; only rows that move are copied.

        Args:
            rows: (new batch,), no more than there were; rows that are not in it are dropped.
        """
        (moved,) = (rows != torch.arange(len(rows), device=rows.device)).nonzero(as_tuple=True)
        source = rows[moved]
        for buffer in self._buffers:
            cached = buffer[:, :, : self.length]
            # index_select copies, before anything is overwritten
            cached.index_copy_(0, moved, cached.index_select(0, source))
        self._buffers = [buffer[: len(rows)] for buffer in self._buffers]
        self._last = {name: last[rows] for name, last in self._last.items()}
