"""Dropout (Srivastava et al. 2014) by the bits of a few random numbers, where torch draws one number an element."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.nn.processor import eager_on_processor

LEVELS = 1 << 16  # that 16 bits tell apart: the share that is dropped is the nearest of them


def dropout(x: Tensor, p: float) -> Tensor:
    """``torch.nn.functional.dropout(x, p)``; on a processor in a quarter of the time.

    There torch draws a random number for each element, one after the other, which was a seventh of the time of training
    a small Transformer. Here 64 random bits decide about four elements. From torch's generator, as ever: the same seed
    gives the same run.
    """
    if p == 0:
        return x
    if _is_torchs(x, p):
        return functional.dropout(x, p)
    return x * _factors(x, p)


def dropout_factors(x: Tensor, p: float) -> Tensor:
    """What dropout multiplies the elements of ``x`` by: 0, or 1 / (1 - p)."""
    return functional.dropout(torch.ones_like(x), p) if _is_torchs(x, p) else _factors(x, p)


def _is_torchs(x: Tensor, p: float) -> bool:
    return not eager_on_processor(x) or p == 1


def _factors(x: Tensor, p: float) -> Tensor:
    dropped = min(max(1, round(p * LEVELS)), LEVELS - 1)
    bits = torch.randint(-(1 << 63), (1 << 63) - 1, (-(-x.numel() // 4),), dtype=torch.int64)
    drawn = bits.view(torch.int16)[: x.numel()].view(x.shape)
    return (drawn >= dropped - LEVELS // 2).to(x.dtype).mul_(LEVELS / (LEVELS - dropped))


class Dropout(nn.Dropout):
    """``torch.nn.Dropout`` by :func:`dropout`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return dropout(input, self.p) if self.training else input
