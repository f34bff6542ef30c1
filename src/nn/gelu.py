"""The Gaussian error linear unit by its tanh formula (Hendrycks & Gimpel 2016, section 2), fast on a processor."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu

from src.nn.processor import eager_on_processor

FEWEST = 1 << 14  # elements: for fewer, one kernel of torch's is faster than several
CHUNK = 1 << 19  # elements at once, which stay in the processor's cache
SLOPE = 2 * math.sqrt(2 / math.pi)
CUBIC = SLOPE * 0.044715


class GELUTanh(nn.Module):
    """``x / 2 (1 + tanh(z / 2))`` with ``z = 2 sqrt(2 / pi) (x + 0.044715 x^3)``, as GPT-2 has it.

    On a processor tanh takes most of the time. Here it is ``x sigmoid(z)``, which is the same and whose exponential
    costs a quarter; in training the derivative is made with it and kept instead of x: the way back is one product.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        if x.numel() >= FEWEST and x.dtype in (torch.float32, torch.bfloat16) and eager_on_processor(x):
            return _GELUTanh.apply(x)
        return gelu(x, approximate="tanh")


class _GELUTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.empty(x.shape, dtype=x.dtype)
        slope = torch.empty_like(y) if ctx.needs_input_grad[0] else None
        flat, n = x.reshape(-1), x.numel()
        # in float32 whatever the type of x; a buffer each, used again for every chunk
        u, z, w = torch.empty(3, min(CHUNK, n), dtype=torch.float32)
        linear = torch.tensor(SLOPE, dtype=torch.float32)
        for start in range(0, n, CHUNK):
            some = slice(start, start + CHUNK)
            u, z, w = u[: n - start], z[: n - start], w[: n - start]
            u.copy_(flat[some])
            torch.addcmul(linear, u, u, value=CUBIC, out=z).mul_(u)
            if slope is not None:
                torch.add(z, u, alpha=-2 / 3 * SLOPE, out=w)  # a third of u dz/du
            z.sigmoid_()
            y.view(-1)[some] = u.mul_(z)
            if slope is not None:
                torch.ops.aten.sigmoid_backward.grad_input(w, z, grad_input=w)
                slope.view(-1)[some] = z.add_(w, alpha=3)
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return grad * slope
