"""Context parallelism: the tokens of each row are divided over the ranks of a group (Jacobs et al. 2023, section 3.1).

Shape letters: B batch, T tokens of a row, P ranks, t = T / P tokens of a rank, W width of all heads, w = W / P.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._functional_collectives import all_gather_single, all_reduce, all_to_all_single, wait_tensor

from src.errors import InputError


class TokenShards:
    """The contiguous part of each row's tokens that a rank computes with; all of them without a group.

    Attention needs all tokens, but of one head at a time: before it the ranks exchange their tokens for heads, by one
    all-to-all, and after it back. So masks and positions are those of whole rows, and no kernel has to know of parts.

    All of it is differentiable. Each of the P ranks has the loss of whole rows, so that what one computes has P times
    its gradient; the mean over all of them, which FSDP takes, is the gradient of the whole.

    Args:
        group: of processes that have the same rows; None for one process.
    """

    def __init__(self, group: Any = None) -> None:
        self.group = group
        self.size = 1 if group is None else dist.get_world_size(group)
        self.rank = 0 if group is None else dist.get_rank(group)

    def part(self, x: Tensor) -> Tensor:
        """Take this rank's tokens: (B, T) to (B, t)."""
        if self.group is None:
            return x
        if x.shape[1] % self.size:
            raise InputError(
                f"rows of {x.shape[1]} tokens cannot be divided over {self.size} context-parallel ranks: change "
                "data.seq_len or context_parallel_size"
            )
        return x.chunk(self.size, 1)[self.rank]

    def to_heads(self, x: Tensor) -> Tensor:
        """Exchange tokens for heads: all heads of a part of the tokens, (B, t, W), to a part of all's, (B, T, w)."""
        if self.group is None:
            return x
        return self._exchange(x.unflatten(2, (self.size, -1)).movedim(2, 0)).movedim(0, 1).flatten(1, 2)

    def to_tokens(self, y: Tensor) -> Tensor:
        """Exchange heads for tokens: (B, T, w) to (B, t, W)."""
        if self.group is None:
            return y
        return self._exchange(y.unflatten(1, (self.size, -1)).movedim(1, 0)).movedim(0, 2).flatten(2, 3)

    def _exchange(self, parts: Tensor) -> Tensor:
        """Send each rank its part, of (P, ...), and receive those of all for this one."""
        return wait_tensor(all_to_all_single(parts.contiguous(), None, None, self.group))

    def gather(self, x: Tensor) -> Tensor:
        """Gather the tokens of all ranks: (B, t, ...) to (B, T, ...)."""
        return x if self.group is None else wait_tensor(all_gather_single(x.contiguous(), 1, self.group))

    def last_before(self, x: Tensor) -> Tensor:
        """Receive the token before this rank's first, (B, 1, ...), of (B, t, ...): on the first rank zeros."""
        if self.group is None:
            return torch.zeros_like(x[:, :1])
        last = self.gather(x[:, -1:])  # all ranks use it, as all take part in its backward pass
        return torch.cat([torch.zeros_like(last[:, :1]), last], 1)[:, self.rank : self.rank + 1]

    def sum(self, x: Tensor) -> Tensor:
        """Add up a number, 0-dim, of each rank."""
        return x if self.group is None else wait_tensor(all_reduce(x, "sum", self.group))
