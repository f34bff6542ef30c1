"""The processes that have rows of their own."""

from typing import Any

import torch.distributed as dist
from lightning.pytorch.strategies import Strategy

from src.distributed.mesh import MeshStrategy
from src.distributed.pipeline import PipelineStrategy


def data_parallel_group(strategy: Strategy) -> Any:
    """The processes with rows of their own; those of one pipeline, or of a tensor-parallel group, are one of them."""
    if not (dist.is_available() and dist.is_initialized()):
        return None
    if isinstance(strategy, PipelineStrategy):
        return strategy.replicas
    if isinstance(strategy, MeshStrategy):
        return strategy.device_mesh["data_parallel"].get_group()
    return dist.group.WORLD


def data_parallel_size(strategy: Strategy) -> int:
    """How many processes have rows of their own."""
    group = data_parallel_group(strategy)
    return 1 if group is None else dist.get_world_size(group)
