"""A network's forward pass as a list of steps: run from end to end, or cut into the stages of a pipeline."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from src.nn import BlockConfig, KVCache, Mask


class Step(NamedTuple):
    """A piece of a forward pass that is not cut.

    Args:
        run: from what the step before gives to what the next one takes; the last one gives the network's output.
        modules: what it calls.
        shapes: (batch, seq) of each of the tensors (batch, seq, d_model) that it gives, and the whole shape of any
            other; none of the last step.
        fraction: of the positions that go through it, where it computes at some of them alone.
    """

    run: Callable[..., Any]
    modules: Sequence[nn.Module | None]
    shapes: Sequence[Sequence[int]] = ()
    fraction: float = 1.0


def stack(
    blocks: nn.ModuleList,
    config: BlockConfig,
    mask: Mask,
    shape: Sequence[int],
    caches: Sequence[KVCache | None] | None = None,
    tables: Sequence[nn.Module | None] | None = None,
    input_ids: Tensor | None = None,
) -> list[Step]:
    """List the steps through a stack of blocks, one each.

    Args:
        blocks: of the stack.
        config: of the network.
        mask: which keys are visible.
        shape: (batch, seq).
        caches: of each block.
        tables: of each block, from ``input_ids`` (batch, seq) to what is added to its values.

    Returns:
        Steps from and to (batch, seq, d_model); with a value residual, the values of the first block come along.
    """

    def through(block: Any, cache: Any, table: Any, x: Tensor, values: Tensor | None = None) -> Any:
        return block(x, mask, cache, values=values, token_values=table and table(input_ids))

    values = (shape[0], config.n_kv_heads or config.n_heads, shape[1], config.head_width)
    shapes = [shape, values] if config.value_residual else [shape]
    absent = [None] * len(blocks)
    parts = zip(blocks, caches or absent, tables or absent, strict=True)
    return [Step(partial(through, *part), [part[0], part[2]], shapes) for part in parts]


def run(steps: Iterable[Step], *state: Any) -> Any:
    """Run steps one after the other, from what the first of them takes."""
    for step in steps:
        found = step.run(*state)
        state = found if type(found) is tuple else (found,)
    return state[0] if len(state) == 1 else state


class Network(nn.Module, ABC):
    """A network that is a list of steps, so that it says once how it computes.

    The tensors that one step gives are all that the next one needs of it: a pipeline sends them from one process to
    another, and has the arguments on each.
    """

    config: Any  # its shape, of a class of its own

    matrix_lr_scale = 1.0  # on the learning rate of the blocks' matrices, by the width: see GPTConfig.mup_width

    @abstractmethod
    def steps(self, *inputs: Any, **options: Any) -> list[Step]:
        """List the forward pass; nothing is computed yet."""

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Run all steps. Arguments and output are those of :meth:`steps`."""
        return run(self.steps(*inputs, **options))

    def forward_part(self, part: range, state: Sequence[Any], **arguments: Any) -> Any:
        """Run the steps of these numbers, from what the first of them takes. Arguments are those of :meth:`steps`."""
        return run(self.steps(**arguments)[part.start : part.stop], *state)

    def hidden(self, *inputs: Any, **options: Any) -> Any:
        """Run all steps but the last, the output layer. Arguments as in :meth:`steps`."""
        return run(self.steps(*inputs, **options)[:-1])
