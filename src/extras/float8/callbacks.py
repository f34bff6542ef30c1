"""What a run is given to multiply the matrices of its blocks in float8."""

import logging
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import lightning as L
import torch
from torch import nn

from src.distributed import MeshStrategy
from src.errors import InputError, run_sh
from src.nn import Block
from src.tasks.trained import NetworkCallback

MULTIPLE = 16  # of both sizes of a matrix that a GPU multiplies in float8


class Float8(NetworkCallback):
    """Compute the products of the blocks' linear layers in float8, forward and backward (Micikevicius et al. 2022).

    What enters a product is divided by a scale, so that its largest number is the largest that the format has, and
    rounded. Weights, gradients and optimizer state are kept as they are without, and so are checkpoints. Embeddings,
    norms, attention scores and output layers are computed as without, and so are layers of other sizes than multiples
    of 16.

    Args:
        recipe: torchao's name for what has a scale: a whole matrix (``tensorwise``: inputs and weights in e4m3,
            gradients in e5m2), or each of its rows (``rowwise``: all in e4m3), which rounds less and is slower.
        emulate: multiply the rounded numbers in float32, on any device: slow, to see what the rounding does to a loss.
    """

    def __init__(self, recipe: Literal["tensorwise", "rowwise"] = "tensorwise", emulate: bool = False) -> None:
        self.recipe, self.emulate = recipe, emulate

    def adapt(self, network: nn.Module) -> None:
        float8 = _torchao()
        config = float8.Float8LinearConfig.from_recipe_name(self.recipe)
        # the backward pass sums over tokens, however many there are
        config = replace(config, emulate=self.emulate, pad_inner_dim=True)
        blocks = [module for module in network.modules() if isinstance(module, Block)]
        if not any(_is_taken(module) for block in blocks for module in block.modules()):
            raise InputError(
                f"Float8: no linear layer of the blocks has sizes that are multiples of {MULTIPLE}: change d_model"
            )
        for block in blocks:
            float8.convert_to_float8_training(
                block, config=config, module_filter_fn=lambda module, _: _is_taken(module)
            )

    def check(self, trainer: L.Trainer) -> None:
        """Refuse devices without float8, and matrices that are cut."""
        _check_installed()
        strategy: Any = trainer.strategy
        if isinstance(strategy, MeshStrategy) and strategy.sizes(trainer.world_size)["tensor_parallel"] > 1:
            raise InputError("Float8: a matrix is not cut over tensor-parallel ranks: choose ddp or fsdp")
        if not (self.emulate or has_float8(strategy.root_device)):
            raise InputError(
                f"Float8: the device {strategy.root_device.type} does not multiply float8: it takes a GPU of compute "
                "capability 8.9 or more, or emulate: true"
            )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.check(trainer)  # of a Trainer from Python, which has checked nothing before


def has_float8(device: torch.device) -> bool:
    """Whether a device has matrix products of float8: NVIDIA's GPUs from Ada and Hopper on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def _is_taken(module: nn.Module) -> bool:
    # no subclass, such as a layer with an adapter, whose forward pass is its own
    return type(module) is nn.Linear and not (module.in_features % MULTIPLE or module.out_features % MULTIPLE)


def _check_installed() -> None:
    if find_spec("torchao") is None:
        raise InputError(f"Float8 needs torchao: EXTRAS=float8 {run_sh('fit')} installs it")


def _torchao() -> Any:
    _check_installed()
    logging.disable(logging.WARNING)  # it warns of each of its libraries that is of a GPU which is not here
    try:
        return import_module("torchao.float8")
    finally:
        logging.disable(logging.NOTSET)
