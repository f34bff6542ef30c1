"""Which tensor here is which of HuggingFace's: renamed, transposed, joined, its rows in another order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Match:
    """One tensor here and HuggingFace's, converted both ways without a change of any bit.

    Args:
        ours: name of the tensor here.
        theirs: names of HuggingFace's, which stand one below the other here.
        transposed: whether HuggingFace holds the transpose.
        rows: row i here is row ``rows[i]`` of theirs; None where their order is the same.
        columns: the same of the columns.
        sizes: rows of each of theirs; equally many if empty.
        tied: further names of the tensor here.
        aliases: further names of it in some files of HuggingFace's.
        part: which of equally many rows of theirs it is, and of how many such parts, where theirs is several here.
    """

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False
    rows: Tensor | None = None
    columns: Tensor | None = None
    sizes: tuple[int, ...] = ()
    tied: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    part: tuple[int, int] = (0, 1)

    def read(self, source: Tensors) -> Tensor:
        """Make the tensor here of HuggingFace's by name."""
        tensor = torch.cat([source[name].T if self.transposed else source[name] for name in self.theirs])
        tensor = tensor.chunk(self.part[1])[self.part[0]]
        if self.rows is not None:
            tensor = tensor[self.rows]
        if self.columns is not None:
            tensor = tensor[:, self.columns]
        return tensor.contiguous()

    def write(self, tensor: Tensor) -> dict[str, Tensor]:
        """Make HuggingFace's tensors by name of the one here, or this part of its one."""
        if self.columns is not None:
            tensor = tensor[:, self.columns.argsort()]
        if self.rows is not None:
            tensor = tensor[self.rows.argsort()]
        parts = tensor.split(self.sizes) if self.sizes else tensor.chunk(len(self.theirs))
        parts = tuple(part.T if self.transposed else part for part in parts)
        return {name: part.contiguous() for name, part in zip(self.theirs, parts, strict=True)}


def layer(
    ours: str,
    theirs: str | tuple[str, ...],
    *,
    transposed: bool = False,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
    sizes: tuple[int, ...] = (),
) -> list[Match]:
    """Match the weight and bias of a linear layer or a norm, named without ``.weight`` and ``.bias``."""
    names = (theirs,) if isinstance(theirs, str) else theirs
    weights, biases = (tuple(f"{name}.{part}" for name in names) for part in ("weight", "bias"))
    of_bias = Match(f"{ours}.bias", biases, rows=rows, sizes=sizes)
    return [Match(f"{ours}.weight", weights, transposed, rows, columns, sizes), of_bias]


def prelu(config: Any, ours: str, theirs: str) -> list[Match]:
    """Match the weight of an activation, if it has one."""
    return [Match(f"{ours}.weight", (f"{theirs}.weight",))] if config.activation == "prelu" else []


def head_by_head(d_model: int, n_heads: int, n: int) -> Tensor:
    """Find which row of ``n`` projections, one below the other, each row here is: see `src.nn.attention`."""
    return torch.arange(n * d_model).view(n, n_heads, -1).transpose(0, 1).flatten()
