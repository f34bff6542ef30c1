"""Rows of all data-parallel processes on each of them, with their gradients."""

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from src.distributed import data_parallel_group


class _Gather(torch.autograd.Function):
    """Every process uses the rows of all, so that a row's gradient is the sum of what each of them has for it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Any) -> Tensor:
        ctx.group, ctx.size = group, len(rows)
        found = [torch.empty_like(rows) for _ in range(dist.get_world_size(group))]
        dist.all_gather(found, rows.contiguous(), group=group)
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        summed = gradients[0].contiguous()
        dist.all_reduce(summed, group=ctx.group)
        start = dist.get_rank(ctx.group) * ctx.size
        return summed[start : start + ctx.size], None


def gather_rows(strategy: Strategy, rows: Tensor) -> Tensor:
    """The rows of all processes that have rows of their own, in the order of their ranks.

    With a loss that is averaged over the processes, the gradient is that of one process with all rows.

    Args:
        strategy: of the run.
        rows: (n, ...), as many on each process.
    """
    group = data_parallel_group(strategy)
    return rows if group is None or dist.get_world_size(group) == 1 else _Gather.apply(rows, group)


def first_row(strategy: Strategy, n: int) -> int:
    """Where the rows of this process, ``n`` of them, begin among those of all."""
    group = data_parallel_group(strategy)
    return 0 if group is None else dist.get_rank(group) * n
