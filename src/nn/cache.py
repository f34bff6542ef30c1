"""The keys and values of tokens already seen, so that decoding computes each token once."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class KeyPositions:
    """The positions of the tokens whose keys are at hand, in the order of the keys. Plain values.

    Args:
        start: of the oldest.
        stop: behind the newest.
        roll: how many of the newest lie before the oldest, in a buffer that is written round and round.
    """

    start: int
    stop: int
    roll: int = 0

    def tensor(self, device: torch.device | str) -> Tensor:
        """(keys,)."""
        return torch.arange(self.start, self.stop, device=device).roll(self.roll)


class KVCache:
    """One attention layer's keys and values, in buffers of a fixed size that are allocated at the first use.

    The buffers are (batch, heads, size, head_dim), so that what a query of one head reads is one piece of memory. With
    a window they have room for it and one token more, and a new token takes the place of the one that has left it.

    Args:
        max_len: how many tokens may come; any number if null, with a window.
        window: how far back a query looks; all the way if null.
    """

    def __init__(self, max_len: int | None, window: int | None = None) -> None:
        sizes = [n for n in (max_len, None if window is None else window + 1) if n is not None]
        if not sizes:
            raise ValueError("a cache needs a max_len or a window")
        self.max_len, self.size = max_len, min(sizes)
        self.length = 0  # of the tokens that came
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    @property
    def bytes(self) -> int:
        """What the buffers take."""
        return sum(buffer.nbytes for buffer in (self._keys, self._values) if buffer is not None)

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, KeyPositions]:
        """Add tokens, and get what they may look at: themselves and those that were held.

        Args:
            keys: (batch, heads, new, head_dim).
            values: the same.

        Returns:
            Keys and values, (batch, heads, held, head_dim), in any order, and the positions of their tokens.
        """
        start, new = self.length, keys.shape[2]
        if self.max_len is not None and start + new > self.max_len:
            raise ValueError(f"{start + new} tokens do not fit into a cache of {self.max_len}")
        if self._keys is None or self._values is None:
            batch, heads, _, head_dim = keys.shape
            self._keys = keys.new_empty(batch, heads, self.size, head_dim)
            self._values = torch.empty_like(self._keys)
        if start + new <= self.size:  # nothing is overwritten: what is held lies in order
            self.length += new
            for buffer, x in self._buffers(keys, values):
                buffer[:, :, start : self.length] = x
            return *self.keys_values(), KeyPositions(0, self.length)
        return self._append_over_older(keys, values)

    def _append_over_older(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, KeyPositions]:
        """:meth:`append` where new tokens take the places of such as have left the window."""
        start, new = self.length, keys.shape[2]
        whole = None
        if new > 1:  # some of them look at what the others overwrite
            whole = [torch.cat([*self._in_order(buffer), x], 2) for buffer, x in self._buffers(keys, values)]
        self.length += new
        slots = torch.arange(max(start, self.length - self.size), self.length, device=keys.device) % self.size
        for buffer, x in self._buffers(keys, values):
            buffer[:, :, slots] = x[:, :, -len(slots) :]
        if whole is not None:
            return whole[0], whole[1], KeyPositions(self.length - whole[0].shape[2], self.length)
        return *self.keys_values(), KeyPositions(self.length - self.size, self.length, self.length % self.size)

    def _buffers(self, keys: Tensor, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        assert self._keys is not None
        assert self._values is not None
        return [(self._keys, keys), (self._values, values)]

    def _in_order(self, buffer: Tensor) -> list[Tensor]:
        """What a buffer holds, oldest first, (batch, heads, held, head_dim); nothing if it is empty."""
        if not self.length:
            return []
        places = torch.arange(max(0, self.length - self.size), self.length, device=buffer.device)
        return [buffer[:, :, places % self.size]]

    def keys_values(self) -> tuple[Tensor, Tensor]:
        """All that is held, as views: (batch, heads, held, head_dim) of each."""
        assert self._keys is not None
        assert self._values is not None
        held = min(self.length, self.size)
        return self._keys[:, :, :held], self._values[:, :, :held]

    def reorder(self, rows: Tensor) -> None:
        """Let row i hold what row ``rows[i]`` held; of rows that stay where they are, nothing is copied.

        Args:
            rows: (new batch,), no more than there were; rows that it does not name are dropped.
        """
        assert self._keys is not None
        assert self._values is not None
        (moved,) = (rows != torch.arange(len(rows), device=rows.device)).nonzero(as_tuple=True)
        source = rows[moved]
        for buffer in (self._keys, self._values):
            held = buffer[:, :, : self.length]
            # selecting makes a copy, before anything is overwritten
            held.index_copy_(0, moved, held.index_select(0, source))
        self._keys, self._values = self._keys[: len(rows)], self._values[: len(rows)]
