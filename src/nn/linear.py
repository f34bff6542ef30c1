"""A linear layer that is fast for the few rows of a decoding step, too."""

import torch
from torch import Tensor, nn

from src.nn.processor import eager_on_processor


class Linear(nn.Linear):
    """:class:`torch.nn.Linear`, which in float32 on a processor computes few rows from the other side.

    For x W^T of a handful of rows the matrix library first packs all of W, which takes longer than the product; for
    W x^T it does not. That is up to six times as fast for two to four rows, and for more of them where the output is
    wider than the input (docs/benchmarks.md).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        if torch.is_grad_enabled() or not self._few(x):
            return super().forward(x)
        columns = x.flatten(0, -2).t()
        y = self.weight @ columns if self.bias is None else torch.addmm(self.bias[:, None], self.weight, columns)
        return y.t().unflatten(0, x.shape[:-1])

    def _few(self, x: Tensor) -> bool:
        most = 64 if self.out_features > self.in_features else 4
        return (
            eager_on_processor(x)
            and 1 < x.numel() // self.in_features <= most
            and x.dtype == self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
        )
