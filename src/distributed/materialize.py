"""Initial weights for a network that was built on the meta device and cut, with one parameter in memory at a time.

They are those that building it on a CPU gives, number for number, so that they depend neither on the strategy nor on
how many processes there are.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
LARGE = 1 << 20  # bytes
# gives freed memory back to the system: glibc else keeps up to a whole network of it; others have no such call
TRIM = getattr(ctypes.CDLL(None), "malloc_trim", lambda padding: 0)
# what gives all of a tensor new values, whatever it held
OVERWRITING = {
    *(aten.normal_.default, aten.uniform_.default, aten.zero_.default),
    *(aten.fill_.Scalar, aten.fill_.Tensor, aten.copy_.default),
}


@torch.no_grad()
def materialize(
    model: nn.Module, build: Callable[[], nn.Module], initial: Callable[[], nn.Module], device: torch.device
) -> None:
    """Give a network that is on the meta device its memory, and its initial weights.

    Args:
        model: on the meta device; its parameters may be sharded, and some of its modules left out.
        build: what it was built by.
        initial: builds the same network with its initial weights, which may be those of a checkpoint.
        device: of the shards.
    """
    if not any(parameter.is_meta for parameter in model.parameters()):  # it was trained before
        return
    _allocate(model, device)
    targets = dict(model.named_parameters(remove_duplicate=False))

    def keep(names: list[str], values: Tensor) -> None:
        for name in [name for name in names if name in targets][:1]:  # tied ones are one
            copy_local(targets[name], values)

    names = _names_by_registration(build)
    state = torch.get_rng_state()
    with torch.device("cpu"):
        try:
            with _OneAtATime(lambda i, values: keep(names[i], values)).watching():
                whole = initial()
        except _NeededAgain:  # its initialisation reads one parameter to fill another: nothing but all of them will do
            torch.set_rng_state(state)
            whole = initial()
            for name, parameter in whole.named_parameters(remove_duplicate=False):
                keep([name], parameter)
    buffers = dict(model.named_buffers())
    for name, buffer in whole.named_buffers():
        if name in buffers:
            copy_local(buffers[name], buffer)


def _allocate(model: nn.Module, device: torch.device) -> None:
    """Give memory to what is on the meta device. `Module.to_empty` would untie tied parameters."""
    swap = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model._apply(lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swap)


def copy_local(target: Tensor, values: Tensor) -> None:
    """Copy the values of a whole tensor into a tensor, or this rank's part of them into its part of one."""
    if isinstance(target, DTensor):
        shape, offset = compute_local_shape_and_global_offset(target.shape, target.device_mesh, target.placements)
        values = values[tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))]
        target = target.to_local()
    target.copy_(values)


@contextmanager
def _registrations(hook: Callable[[Tensor], None]) -> Iterator[None]:
    """Call a hook with each parameter as a module takes it."""

    def call(module: nn.Module, name: str, parameter: Tensor) -> None:
        hook(parameter)  # and let the module take it as it is

    handle = register_module_parameter_registration_hook(call)
    try:
        yield
    finally:
        handle.remove()


def _names_by_registration(build: Callable[[], nn.Module]) -> list[list[str]]:
    """List the names that each parameter has in the end, in the order in which modules take them; none if replaced."""
    taken: dict[int, Tensor] = {}
    with _registrations(lambda parameter: taken.update({id(parameter): parameter})), torch.device("meta"):
        model = build()
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [names.get(key, []) for key in taken]


class _NeededAgain(Exception):  # noqa: N818
    """A parameter that was freed is read."""


class _OneAtATime(TorchDispatchMode):
    """Free each parameter when the initialisation goes on to another, after its values were kept.

    One that was freed may be given new values, and is kept again: a layer initialises itself as it is made, and the
    network does so once more.

    Args:
        keep: given a parameter's number, by the order in which modules take them, and its values.
    """

    def __init__(self, keep: Callable[[int, Tensor], None]) -> None:
        super().__init__()
        self.keep = keep
        self.parameters: list[Tensor] = []
        self.numbers: dict[int, int] = {}  # by storage, which a parameter's views share
        self.held: int | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        with _registrations(self._take), self:
            yield
            self._hold(None)

    def _take(self, parameter: Tensor) -> None:
        storage = parameter.untyped_storage()
        number = self.numbers.get(storage._cdata)
        if number is not None and self.parameters[number] is parameter:  # tied
            return
        if number is not None or not storage.resizable() or storage.nbytes() != _bytes(parameter):
            raise _NeededAgain  # memory that is not its own cannot be freed
        self.parameters.append(parameter)
        self._hold(len(self.parameters) - 1)
        self.numbers[storage._cdata] = len(self.parameters) - 1

    def _hold(self, number: int | None) -> None:
        """Keep and free the parameter that is held, and make room for another."""
        if self.held is not None:
            parameter = self.parameters[self.held]
            self.keep(self.held, parameter.detach())
            parameter.untyped_storage().resize_(0)
            if _bytes(parameter) > LARGE:
                TRIM(0)
        self.held = number
        if number is not None:
            storage = self.parameters[number].untyped_storage()
            if not storage.nbytes():
                storage.resize_(_bytes(self.parameters[number]))

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function not in (
            aten.detach.default,
            aten.alias.default,
        ):  # which a freed parameter has, as `parameter.data`
            used = [
                self.numbers.get(t.untyped_storage()._cdata) for t in tree_leaves((args, kwargs)) if _has_storage(t)
            ]
            freed = [number for number in used if number not in (None, self.held)]
            if freed:
                first = args[0]
                is_whole = _has_storage(first) and first.numel() == self.parameters[freed[0]].numel()
                if len(freed) > 1 or used[0] != freed[0] or not is_whole or function not in OVERWRITING:
                    raise _NeededAgain
                self._hold(freed[0])
        return function(*args, **kwargs)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _has_storage(leaf: Any) -> bool:
    return type(leaf) in (Tensor, nn.Parameter)
