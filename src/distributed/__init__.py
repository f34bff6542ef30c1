"""Strategies: how a run is spread over processes, chosen by one more configuration file."""

from src.distributed.collectives import (
    clip_by_global_norm,
    data_parallel_group,
    data_parallel_size,
    gather_objects,
    mean_over_ranks,
    unsharded_model,
)
from src.distributed.mesh import MeshStrategy
from src.distributed.pipeline import PipelineStrategy
from src.distributed.saving import AtomicCheckpointIO, with_checkpoint_io
from src.distributed.zero import ZeroStrategy

__all__ = [
    "AtomicCheckpointIO",
    "MeshStrategy",
    "PipelineStrategy",
    "ZeroStrategy",
    "clip_by_global_norm",
    "data_parallel_group",
    "data_parallel_size",
    "gather_objects",
    "mean_over_ranks",
    "unsharded_model",
    "with_checkpoint_io",
]
