"""Strategies: how a run is spread over processes, chosen by one more configuration file."""

from src.distributed.gather import data_parallel_size, first_row, gather_rows
from src.distributed.gradients import clip_by_global_norm
from src.distributed.mesh import MeshStrategy
from src.distributed.pipeline import PipelineStrategy
from src.distributed.saving import WholeCheckpointIO
from src.distributed.whole import whole_model
from src.distributed.zero import ZeroStrategy

__all__ = [
    "MeshStrategy",
    "PipelineStrategy",
    "WholeCheckpointIO",
    "ZeroStrategy",
    "clip_by_global_norm",
    "data_parallel_size",
    "first_row",
    "gather_rows",
    "whole_model",
]
