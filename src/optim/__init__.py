"""Learning-rate schedules and parameter groups."""

from src.optim.groups import parameter_groups
from src.optim.schedules import Constant, Cosine, InverseSquareRoot, Linear, Schedule, WarmupStableDecay

__all__ = [
    "Constant",
    "Cosine",
    "InverseSquareRoot",
    "Linear",
    "Schedule",
    "WarmupStableDecay",
    "parameter_groups",
]
