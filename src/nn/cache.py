"""The keys and values of tokens already seen, so that decoding computes each token once."""

import torch
from torch import Tensor


class KVCache:
    """One attention layer's keys and values, in buffers of a fixed size that are allocated at the first use.

    The buffers are (batch, max_len, heads, head_dim), so that what is held of a row is one piece of memory.

    Args:
        max_len: how many tokens fit.
    """

    def __init__(self, max_len: int) -> None:
        self.max_len = max_len
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add (batch, heads, new, head_dim) of each, and return all that is held: (batch, heads, length, head_dim)."""
        start, end = self.length, self.length + keys.shape[2]
        if end > self.max_len:
            raise ValueError(f"{end} tokens do not fit into a cache of {self.max_len}")
        if self._keys is None or self._values is None:
            batch, heads, _, head_dim = keys.shape
            self._keys = keys.new_empty(batch, self.max_len, heads, head_dim)
            self._values = torch.empty_like(self._keys)
        self._keys[:, start:end] = keys.transpose(1, 2)
        self._values[:, start:end] = values.transpose(1, 2)
        self.length = end
        return self.keys_values()

    def keys_values(self) -> tuple[Tensor, Tensor]:
        """All that is held, as views: (batch, heads, length, head_dim) of each."""
        assert self._keys is not None
        assert self._values is not None
        return self._keys[:, : self.length].transpose(1, 2), self._values[:, : self.length].transpose(1, 2)

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
            held = buffer[:, : self.length]
            # selecting makes a copy, before anything is overwritten
            held.index_copy_(0, moved, held.index_select(0, source))
        self._keys, self._values = self._keys[: len(rows)], self._values[: len(rows)]
