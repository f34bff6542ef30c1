"""A linear layer with an adapter of low rank (Hu et al. 2021, section 4.1)."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from src.errors import InputError
from src.nn import Block

PARTS = ("lora_A.weight", "lora_B.weight", "scaling")  # what the adapter of a layer is, by the names in a state dict


class LoRALinear(nn.Linear):
    """``W x + b + s · B A dropout(x)`` with W and b as they were, and s = alpha / rank: (..., in) to (..., out).

    A (rank, in) is drawn as the weight of any linear layer is, and B (out, rank) is zero: training begins with the
    function of the layer whose place it takes. W and b keep their names, so that weights without an adapter fit it.

    Args:
        linear: whose parameters it takes, and freezes.
        rank: of the adapter.
        alpha: of the scaling.
        dropout: of what the adapter reads.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, dropout: float = 0.0) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight.requires_grad_(False), linear.bias
        if self.bias is not None:
            self.bias.requires_grad_(False)
        like: dict[str, Any] = {"bias": False, "device": self.weight.device, "dtype": self.weight.dtype}
        self.dropout = nn.Dropout(dropout)
        self.lora_A = nn.Linear(self.in_features, rank, **like)
        self.lora_B = nn.Linear(rank, self.out_features, **like)
        nn.init.zeros_(self.lora_B.weight)
        self.register_buffer("scaling", torch.tensor(alpha / rank, device=self.weight.device))
        self.register_load_state_dict_post_hook(_may_lack_adapter)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.lora_B(self.lora_A(self.dropout(x))) * self.scaling


def _may_lack_adapter(module: nn.Module, incompatible: Any) -> None:
    missing = incompatible.missing_keys
    missing[:] = [name for name in missing if not name.endswith(tuple(f".{part}" for part in PARTS))]


def delta(a: Tensor, b: Tensor, scaling: Tensor | float) -> Tensor:
    """What an adapter adds to a weight: (rank, in) and (out, rank) to (out, in), in float32."""
    return b.float() @ a.float() * scaling


def linear_layers(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """List the linear layers of the blocks of a network, each with the module that has it, and its name there."""
    for block in network.modules():
        if isinstance(block, Block):
            for parent in list(block.modules()):
                for name, child in list(parent.named_children()):
                    if isinstance(child, nn.Linear) and not isinstance(parent, LoRALinear):
                        yield parent, name, child


def add_adapters(network: nn.Module, rank: int, alpha: float, dropout: float, targets: Sequence[str] | None) -> None:
    """Freeze a network, and give the linear layers of its blocks an adapter each: all, or those of some names."""
    found = list(linear_layers(network))
    names = dict.fromkeys(name for _, name, _ in found)
    for name in targets if targets is not None else []:
        if name not in names:
            raise InputError(f"LoRA: the blocks of this network have no linear layer {name!r}: {', '.join(names)}")
    if not found:
        raise InputError("LoRA: the blocks of this network have no linear layers that could have an adapter")
    network.requires_grad_(False)
    for parent, name, linear in found:
        if targets is None or name in targets:
            setattr(parent, name, LoRALinear(linear, rank, alpha, dropout))
