"""What each strategy holds on a device, and what it sends: bytes, as formulas over the shapes of the parameters."""

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel

from src.distributed.plans import tensor_plan
from src.distributed.stages import cut, keep, steps_of
from src.extras.plan.network import Facts
from src.models.network import Network
from src.nn import Block

BUCKET = 20_000_000  # elements that ZeRO gathers or reduces at once, by default
USABLE = 0.9  # of a device's memory: the rest is the driver's, the communication library's, and fragments


class Layout(NamedTuple):
    """How a strategy divides the devices.

    Args:
        name: of its file in configs/strategy.
        devices: all of them.
        tensor: that share the rows of a batch, by tensor parallelism.
        stages: the same, of a pipeline; each is on devices of its own, which FSDP and tensor parallelism divide.
        micro_batches: of a pipeline.
        replicas: groups of data-parallel devices that have all shards each.
        context: that share the tokens of a row, by context parallelism.
    """

    name: str
    devices: int
    tensor: int = 1
    stages: int = 1
    micro_batches: int = 4
    replicas: int = 1
    context: int = 1

    @property
    def data(self) -> int:
        """Devices that have rows of their own."""
        return self.devices // (self.tensor * self.stages * self.context)

    @property
    def shards(self) -> int:
        """Devices that have a shard each of what the others cut."""
        return self.data * self.context // self.replicas

    def __str__(self) -> str:
        parts = {
            "pipeline": self.stages,
            "tensor_parallel": self.tensor,
            "context_parallel": self.context,
            "replicas": self.replicas,
        }
        sizes = [f"{name} {size}" for name, size in parts.items() if size > 1]
        combines = self.name in ("tensor_parallel", "pipeline")
        if combines and self.shards > 1:
            sizes.append(f"fsdp {self.shards}")
        return " x ".join(sizes) if combines and sizes else " ".join([self.name, *sizes])


@dataclass(frozen=True)
class Estimate:
    """Bytes a device, but for rows.

    Args:
        layout: of which.
        parameters: that it keeps.
        gradients: that it keeps until the optimizer's step.
        optimizer: state, and a copy of the parameters in float32 where the strategy keeps one.
        gathered: parameters that are whole, or cast, for as long as they are computed with.
        logits: of the loss.
        row: activations of a row of the batch that it computes at once.
        checkpointed_row: the same with activation checkpointing.
        free: what is left for rows.
        sent: in an optimizer step, whatever the rows.
        sent_row: for each row, forward and backward.
    """

    layout: Layout
    parameters: float
    gradients: float
    optimizer: float
    gathered: float
    logits: float
    row: float
    checkpointed_row: float
    memory: float
    sent: float
    sent_row: float

    @property
    def free(self) -> float:
        fixed = self.parameters + self.gradients + self.optimizer + self.gathered + self.logits
        return self.memory * USABLE - fixed

    def rows(self, checkpointed: bool = False) -> int:
        """The largest micro-batch that fits; 0 if none does."""
        return max(0, int(self.free // (self.checkpointed_row if checkpointed else self.row)))


def held_shapes(model: nn.Module, tensor: int = 1) -> list[tuple[int, ...]]:
    """List the shapes of what a rank holds of each parameter; a dimension that does not divide is rounded up."""
    plan = tensor_plan(model) if tensor > 1 else {}
    found: dict[int, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            shape = list(parameter.shape)
            if name in plan:
                by_rows = isinstance(plan[name], ColwiseParallel) or isinstance(module, nn.Embedding)
                if by_rows or len(shape) > 1:
                    shape[0 if by_rows else 1] = -(-shape[0 if by_rows else 1] // tensor)
            found.setdefault(id(parameter), tuple(shape))
    return list(found.values())


def held(shapes: list[tuple[int, ...]], shards: int) -> int:
    """Count the elements of the first rank's shards, which are cut along the first dimension and are the largest."""
    return sum(-(-shape[0] // shards) * math.prod(shape[1:]) for shape in shapes)


def stages_of(model: Network, n: int) -> list[Network]:
    """Cut a network as a pipeline of ``n`` stages does: what each of them holds."""
    stages = [deepcopy(model) for _ in range(n)]
    for stage, part in zip(stages, cut(model, n), strict=True):
        keep(stage, steps_of(stage)[part.start : part.stop])
    return stages


def layouts(facts: Facts, devices: int, machine: int, chosen: Layout | None = None) -> Iterator[Layout]:
    """Give each strategy the sizes that suit the devices, but those that the configuration has chosen."""
    if devices == 1:
        yield Layout("one device", 1)
        return
    made = {name: Layout(name, devices) for name in ("ddp", "zero1", "zero2", "zero3", "fsdp")}
    heads, blocks = facts.model.config.n_heads, len(_blocks(facts.model))
    sizes = [n for n in range(1, min(devices, machine) + 1) if devices % n == 0]
    made["tensor_parallel"] = Layout("tensor_parallel", devices, tensor=max(n for n in sizes if heads % n == 0))
    stages = max(n for n in sizes if n <= blocks)
    made["pipeline"] = Layout("pipeline", devices, stages=stages, micro_batches=4 * stages)
    if chosen is not None:
        made[chosen.name] = chosen
    yield from made.values()


def estimate(facts: Facts, layout: Layout, memory: float) -> Estimate:
    """Compute what a device of this memory holds and sends."""
    kinds = {"fsdp": _mesh, "tensor_parallel": _mesh, "pipeline": _mesh, "zero1": _zero, "zero2": _zero}
    parts = {**kinds, "zero3": _zero}.get(layout.name, _ddp)(facts, layout)
    rows = {"row": facts.activations, "checkpointed_row": facts.checkpointed, "sent_row": 0.0}
    return Estimate(layout=layout, memory=memory, logits=facts.logits(layout.tensor), **{**rows, **parts})


def _ddp(facts: Facts, layout: Layout) -> dict[str, float]:
    whole = facts.n_parameters * facts.itemsize
    return {
        "parameters": whole,
        "gradients": whole * facts.trained,
        "optimizer": facts.n_parameters * facts.trained * facts.state,
        "gathered": _cast(facts, facts.n_parameters),
        "sent": _all_reduce(whole * facts.trained, layout.devices),
    }


def _zero(facts: Facts, layout: Layout) -> dict[str, float]:
    n, shards = facts.n_parameters, layout.devices
    part = n / shards
    computed = facts.compute_itemsize  # DeepSpeed's own mixed precision: float32 in the optimizer alone
    stage = int(layout.name[-1])
    block, around = _block_and_around(facts, 1)
    gathered = min(2 * block + around, n) if stage == 3 else BUCKET
    return {
        "parameters": (part if stage == 3 else n) * computed,
        "gradients": (n if stage == 1 else part) * facts.trained * computed,
        "optimizer": part * facts.trained * (facts.state + 4),
        "gathered": (gathered + (BUCKET if stage > 1 else 0)) * computed,
        "sent": ((2 if stage == 3 else 1) + facts.trained) * _gather(n * computed, shards),
    }


def _mesh(facts: Facts, layout: Layout) -> dict[str, float]:
    """Pipeline stages, each by tensor parallelism and FSDP, in groups of which each has all shards (HSDP).

    With context parallelism a device has its part of a row's tokens.
    """
    t, c, shards = layout.tensor, layout.context, layout.shards
    stages = stages_of(facts.model, layout.stages)
    mine, whole = max((held(shapes, shards), held(shapes, 1)) for shapes in (held_shapes(stage, t) for stage in stages))
    if layout.data * c == 1 or (layout.stages == 1 and shards == 1):
        gathered = _cast(facts, whole)
    elif layout.stages == 1:
        block, around = _block_and_around(facts, t)
        # a block, the next one on its way, and what is not in a block, which stays; each in the type of the products
        gathered = min(2 * block + around, whole) * facts.compute_itemsize
    else:  # and the gradients, until the last micro-batch
        gathered = whole * (facts.compute_itemsize + facts.trained * facts.itemsize)
    # parameters once a batch in a pipeline, else forward and backward; gradients once
    times = 1 if layout.stages > 1 else 2
    n_blocks = max(len(_blocks(stage)) for stage in stages)
    # the first stage has as many micro-batches in memory as there are stages (1F1B)
    in_memory = min(layout.stages, layout.micro_batches) if layout.stages > 1 else 1
    share = n_blocks / len(_blocks(facts.model)) * in_memory
    # each rank has the whole residual stream, where it enters the two norms of a block
    stream = 2 * facts.block_inputs
    hidden = facts.seq_len * facts.model.config.d_model / c
    return {
        "parameters": mine * facts.itemsize,
        "gradients": mine * facts.trained * facts.itemsize,
        "optimizer": mine * facts.trained * facts.state,
        "gathered": gathered,
        "row": (((facts.blocks - stream) / t + stream) * share + facts.around) / c,
        "checkpointed_row": (facts.block_inputs * share + facts.largest_block / t + facts.around) / c,
        "sent": _gather(whole * (times * facts.compute_itemsize + facts.trained * facts.itemsize), shards)
        + _all_reduce(mine * facts.trained * facts.itemsize, layout.replicas),
        # twice a block forward and backward; the residual stream from stage to stage, and its gradient back
        "sent_row": n_blocks * 4 * _all_reduce(hidden * facts.compute_itemsize, t)
        + (2 * hidden * facts.itemsize if layout.stages > 1 else 0)
        + n_blocks * 2 * _gather(_exchanged(facts, layout), c),
    }


def _exchanged(facts: Facts, layout: Layout) -> float:
    """Count the bytes of the queries, keys and values of a rank's tokens, and of what attention gives."""
    if layout.context == 1:
        return 0
    config = facts.model.config
    heads = 2 * config.n_heads + 2 * (config.n_kv_heads or config.n_heads)
    return facts.seq_len * heads * config.head_width * facts.compute_itemsize / (layout.tensor * layout.context)


def _blocks(model: nn.Module) -> list[Block]:
    return [module for module in model.modules() if isinstance(module, Block)]


def _block_and_around(facts: Facts, tensor: int) -> tuple[int, int]:
    """Count the elements of a rank's part of the largest block, and of what is in no block."""
    whole = held(held_shapes(facts.model, tensor), 1)
    sizes = [held(held_shapes(block, tensor), 1) for block in _blocks(facts.model)]
    return max(sizes), whole - sum(sizes)


def _cast(facts: Facts, elements: int) -> float:
    """Count the bytes of the weights that autocast has cast, which it keeps until the backward pass."""
    return elements * facts.compute_itemsize if facts.is_mixed else 0


def _gather(size: float, n: int) -> float:
    """Count the bytes that a device sends in a ring for an all-gather, or a reduce-scatter, of so many in all."""
    return size * (n - 1) / n


def _all_reduce(size: float, n: int) -> float:
    return 2 * _gather(size, n)
