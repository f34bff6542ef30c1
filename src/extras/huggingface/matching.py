"""How a tensor here and tensors of HuggingFace's correspond, both ways, without a change of any bit."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Match:
    """One tensor here: HuggingFace's, transposed if they are, one below the other, in another order.

    Args:
        ours: name of the tensor here.
        theirs: names of HuggingFace's, of equal shapes.
        transposed: whether HuggingFace holds the transpose.
        rows: row i here is row ``rows[i]`` of theirs; in their order if null.
        columns: the same of the columns.
    """

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False
    rows: Tensor | None = None
    columns: Tensor | None = None

    def read(self, source: Tensors) -> Tensor:
        """The tensor here, from HuggingFace's by name."""
        tensor = torch.cat([source[name].T if self.transposed else source[name] for name in self.theirs])
        if self.rows is not None:
            tensor = tensor[self.rows]
        if self.columns is not None:
            tensor = tensor[:, self.columns]
        return tensor.contiguous()

    def write(self, tensor: Tensor) -> dict[str, Tensor]:
        """HuggingFace's tensors by name, from the one here."""
        if self.columns is not None:
            tensor = tensor[:, self.columns.argsort()]
        if self.rows is not None:
            tensor = tensor[self.rows.argsort()]
        parts = tensor.chunk(len(self.theirs))
        return {
            name: (part.T if self.transposed else part).contiguous()
            for name, part in zip(self.theirs, parts, strict=True)
        }


def layer(
    ours: str,
    theirs: str | tuple[str, ...],
    *,
    transposed: bool = False,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
) -> list[Match]:
    """The weight and bias of a linear layer or a norm, named without ``.weight`` and ``.bias``."""
    names = (theirs,) if isinstance(theirs, str) else theirs
    weights, biases = (tuple(f"{name}.{part}" for name in names) for part in ("weight", "bias"))
    return [Match(f"{ours}.weight", weights, transposed, rows, columns), Match(f"{ours}.bias", biases, rows=rows)]


def head_by_head(d_model: int, n_heads: int, n: int) -> Tensor:
    """Which row of ``n`` projections, one below the other, each row of theirs here is: see `src.nn.attention`."""
    return torch.arange(n * d_model).view(n, n_heads, -1).transpose(0, 1).flatten()
