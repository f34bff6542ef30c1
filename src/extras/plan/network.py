"""What the meta device tells of a network: parameters, FLOPs, and what a forward pass keeps for the backward one."""

import inspect
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from src.callbacks.throughput import forward_flops, with_future
from src.hardware import compute_dtype
from src.models.bert import MASKED
from src.models.network import Network
from src.nn import Block, Head, SelfAttention
from src.nn.cross_entropy import FEWEST_ROWS, LOGITS_ELSEWHERE
from src.tasks import Task
from src.tasks.trained import trained_sizes


@dataclass(frozen=True)
class Facts:
    """What a plan is computed from.

    Args:
        model: the network, on the meta device.
        n_parameters: those that are shared counted once.
        trained: the fraction of them that is trained.
        itemsize: bytes of a parameter and of its gradient.
        compute_itemsize: bytes of what the matrix products take, which differs under mixed precision.
        state: bytes of optimizer state for each parameter that is trained, on average.
        seq_len: tokens of a row.
        flops: of training on a token, forward and backward.
        blocks: bytes that the blocks keep of a row for their backward passes.
        largest_block: the same of the one that keeps most.
        around: the same of what is outside the blocks, the output layer apart.
        block_inputs: bytes of the inputs of all blocks, which checkpointing keeps instead.
    """

    model: Network
    n_parameters: int
    trained: float
    itemsize: int
    compute_itemsize: int
    state: float
    seq_len: int
    flops: float
    blocks: float
    largest_block: float
    around: float
    block_inputs: float

    @property
    def is_mixed(self) -> bool:
        return self.compute_itemsize < self.itemsize

    @property
    def activations(self) -> float:
        """Bytes that a row keeps for its backward pass."""
        return self.blocks + self.around

    @property
    def checkpointed(self) -> float:
        """The same with activation checkpointing: the blocks' inputs, and one block that is computed anew."""
        return self.block_inputs + self.largest_block + self.around

    @property
    def vocabulary(self) -> int:
        return max((module.out_features for module in self.model.modules() if isinstance(module, Head)), default=0)

    def logits(self, parts: int = 1) -> float:
        """Bytes of the loss over a vocabulary that is cut into parts, however many rows there are.

        A few rows of logits in the type of the products, their log-softmax in float32, and the gradient cast back
        (:mod:`src.nn.cross_entropy`); the output layer's gradient in float32, and its weight cast.
        """
        width = self.model.config.d_model if self.vocabulary else 0
        vocabulary = self.vocabulary / parts
        rows = max(FEWEST_ROWS, LOGITS_ELSEWHERE // self.vocabulary) if self.vocabulary else 0
        return vocabulary * (rows * (4 + 2 * self.compute_itemsize) + width * (4 + self.compute_itemsize))


def facts_of(task: Task, precision: str, seq_len: int) -> Facts:
    """Build a task's network on the meta device, and run it there."""
    dtype = compute_dtype(precision)

    def build() -> Network:
        with torch.device("meta"):
            model: Network = task.build_model()
        return model.to(dtype) if precision.endswith("-true") else model

    model = build()
    itemsize = next(model.parameters()).element_size()
    one, two = (_saved(build(), dtype, rows, seq_len) for rows in (1, 2))
    row = {block: two[block] - one[block] for block in two}  # less what does not grow with the rows, as weights
    width = seq_len * task.config.d_model
    # the output layer's inputs, and the gradient that it has ready, for each token that is predicted
    around = row.pop(None) + 2 * width * dtype.itemsize * getattr(task.config, "n_future_tokens", 1)
    n_parameters = sum(p.numel() for p in model.parameters())
    trained = sum(trained_sizes(model).values()) / n_parameters
    return Facts(
        model=model,
        n_parameters=n_parameters,
        trained=trained,
        itemsize=itemsize,
        compute_itemsize=min(itemsize, dtype.itemsize),
        state=state_bytes(task, model) * itemsize,
        seq_len=seq_len,
        flops=(2 + trained) * forward_flops(model, inputs_of(model, 1, seq_len)) / seq_len,
        blocks=sum(row.values()),
        largest_block=max(row.values(), default=0),
        around=around,
        block_inputs=len(row) * width * itemsize,
    )


def inputs_of(model: Network, rows: int, seq_len: int) -> dict[str, Tensor]:
    """Make the inputs that a network must have, each (rows, seq_len), and the positions that it is to predict."""
    parameters = inspect.signature(model.steps).parameters
    tokens = torch.zeros(rows, seq_len, dtype=torch.long, device="meta")
    inputs = {name: tokens for name, parameter in parameters.items() if parameter.default is parameter.empty}
    if "masked_positions" in parameters:
        inputs["masked_positions"] = tokens[:, : max(1, round(MASKED * seq_len))]
    return inputs


def state_bytes(task: Task, model: nn.Module) -> float:
    """Count what the optimizer keeps of each element, in elements, on average: by a step on small tensors.

    What it keeps of rows, columns or steps alone is left out: it is less than a hundredth of a matrix.
    """
    optimizer, pairs = task.try_optimizer(model)
    elements = 0
    for parameter, small in pairs:
        states = [value for value in optimizer.state[small].values() if isinstance(value, Tensor)]
        elements += parameter.numel() * sum(value.numel() // small.numel() for value in states)
    return elements / sum(parameter.numel() for parameter, _ in pairs)


class _Autocast(TorchFunctionMode):
    """What autocast does to linear layers, which the meta device has not; the rest follows from their outputs."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is nn.functional.linear:
            args = [x if x is None else x.to(self.dtype) for x in args]
        return function(*args, **(kwargs or {}))


class _FusedAttention(torch.autograd.Function):
    """What a fused kernel keeps: queries, keys, values, its output, and a normaliser for each query."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        output = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, output, q.new_empty(q.shape[:3], dtype=torch.float32))
        return output


def _fused(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> Tensor:
    attended: Tensor = _FusedAttention.apply(q, k, v)
    return attended


def _saved(model: Network, dtype: torch.dtype, rows: int, seq_len: int) -> dict[int | None, int]:
    """Count the bytes that a forward pass up to the output layer keeps, by the number of the block; None: of none."""
    place: list[int | None] = [None]
    kept: dict[int, tuple[Tensor, int | None]] = {}
    blocks = [module for module in model.train().modules() if isinstance(module, Block)]

    def enter(number: int | None, *_: Any) -> None:
        place[0] = number

    for number, block in enumerate(blocks):
        block.register_forward_pre_hook(partial(enter, number))
        block.register_forward_hook(partial(enter, None))
    for module in model.modules():
        if isinstance(module, SelfAttention):
            module.kernel = _fused

    def pack(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, (tensor, place[0]))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), _Autocast(dtype):
        inputs = with_future(model, inputs_of(model, rows, seq_len), lambda _, x: x.sum())
        (model if "future" in inputs else model.hidden)(**inputs)
    found: dict[int | None, int] = dict.fromkeys([None, *range(len(blocks))], 0)
    for tensor, where in kept.values():
        found[where] += tensor.untyped_storage().nbytes()
    return found
