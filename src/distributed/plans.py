"""What each tensor-parallel rank holds of a network, read off the kinds of modules, so that it serves every one."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel

from src.errors import InputError
from src.nn import (
    Block,
    CrossAttention,
    FeedForward,
    GlobalSelfAttention,
    Head,
    LearnedPositions,
    SelfAttention,
    ValueEmbedding,
)
from src.nn.attention import HeadNorm


class _OfHeads(ParallelStyle):
    """A replicated weight that each rank applies to its own heads, (B, H, T, D): its gradient is the sum of theirs."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def enter(_: nn.Module, inputs: tuple[Any, ...], mesh: DeviceMesh) -> tuple[Any, ...]:
            return tuple(DTensor.from_local(x, mesh, (Shard(1),), run_check=False) for x in inputs)

        def leave(_: nn.Module, output: Any, mesh: DeviceMesh) -> Tensor:
            return output.to_local()

        module = distribute_module(module, device_mesh, None, enter, leave)  # type: ignore[arg-type]
        for parameter in module.parameters():  # FSDP, which takes their place, sums by itself
            parameter.register_hook(lambda gradient: gradient.redistribute(placements=(Replicate(),)))
        return module


EMBEDDINGS = (LearnedPositions, ValueEmbedding)  # that are not cut by the vocabulary
STYLES: dict[type[nn.Module], Callable[[], ParallelStyle]] = {
    HeadNorm: _OfHeads,
    ValueEmbedding: ColwiseParallel,  # by heads, as the values that it is added to
    Head: partial(ColwiseParallel, output_layouts=Replicate()),
}


def tensor_plan(model: nn.Module) -> dict[str, ParallelStyle]:
    """Plan what each rank of a tensor-parallel group holds, by module name (Shoeybi et al. 2019, section 3).

    Attention is cut by heads, of grouped queries by groups, and the feed-forward network by its inner width: the first
    projection of each by columns, the second by rows, and one sum over the ranks after it. A gated network's two first
    projections are cut alike. The token embeddings and the output layer, one matrix where they are tied, are cut by the
    vocabulary. What the plan does not name is replicated on every rank.
    """
    plan: dict[str, ParallelStyle] = {}
    for name, module in model.named_modules():
        if isinstance(module, SelfAttention):
            plan |= {f"{name}.qkv": ColwiseParallel(), f"{name}.out": RowwiseParallel()}
            if isinstance(module, GlobalSelfAttention):
                plan |= {f"{name}.global_q": ColwiseParallel(), f"{name}.global_kv": ColwiseParallel()}
        elif isinstance(module, CrossAttention):
            plan |= {f"{name}.q": ColwiseParallel(), f"{name}.kv": ColwiseParallel(), f"{name}.out": RowwiseParallel()}
        elif isinstance(module, FeedForward):
            plan |= {f"{name}.up": ColwiseParallel(), f"{name}.down": RowwiseParallel()}
            if module.gated:  # the same columns as of `up`, so that a rank multiplies pairs that belong together
                plan[f"{name}.gate"] = ColwiseParallel()
        elif isinstance(module, nn.Embedding) and type(module) not in EMBEDDINGS and "segment" not in name:
            plan[name] = RowwiseParallel(input_layouts=Replicate())
        elif style := next((style for kind, style in STYLES.items() if isinstance(module, kind)), None):
            plan[name] = style()
    return plan


def check_tensor_parallel(model: nn.Module, size: int) -> None:
    """Refuse a network that cannot be cut over ``size`` ranks."""
    _check_heads(model, size, f"{size} tensor-parallel ranks")
    for module in model.modules():
        if isinstance(module, SelfAttention) and list(module.parameters(recurse=False)):
            raise InputError("attention with a learned bias cannot be cut over tensor-parallel ranks: choose another")
        if isinstance(module, FeedForward):
            if module.up.out_features % size:
                raise InputError(f"d_ff {module.up.out_features} cannot be divided over {size} tensor-parallel ranks")
            if any(True for _ in module.activation.parameters()):
                raise InputError(
                    "an activation with parameters of its own cannot be cut over tensor-parallel ranks: choose another"
                )


def check_context_parallel(model: nn.Module, size: int, tensor_size: int = 1) -> None:
    """Refuse a network whose rows cannot be divided over ``size`` ranks, each of them cut over ``tensor_size``."""
    if not hasattr(model, "shard_tokens"):
        raise InputError(
            f"{type(model).__name__} needs whole rows: context_parallel_size {size} is for networks that have "
            "shard_tokens, as GPT has"
        )
    over = f" x {tensor_size} tensor-parallel" if tensor_size > 1 else ""
    _check_heads(model, size * tensor_size, f"{size} context-parallel{over} ranks")
    for block in model.modules():
        if isinstance(block, Block) and (
            not isinstance(block.attention, SelfAttention) or list(block.attention.parameters(recurse=False))
        ):
            raise InputError(
                f"{type(block.attention).__name__} cannot be divided over context-parallel ranks: choose another "
                "attention"
            )


def _check_heads(model: nn.Module, size: int, ranks: str) -> None:
    for name in ("n_heads", "n_kv_heads"):
        if (heads := getattr(model.config, name, None) or size) % size:
            raise InputError(f"{name} {heads} cannot be divided over {ranks}: change one of the two")
