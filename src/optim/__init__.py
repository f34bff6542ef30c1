"""Optimizers beside torch's, learning-rate schedules and parameter groups."""

from src.optim.optimizers import GroupOptions, Lion, Momentum, Muon, Nesterov, parameter_groups, scale_rates
from src.optim.schedules import Constant, Cosine, InverseSquareRoot, Linear, Schedule, WarmupStableDecay

__all__ = [
    "Constant",
    "Cosine",
    "GroupOptions",
    "InverseSquareRoot",
    "Linear",
    "Lion",
    "Momentum",
    "Muon",
    "Nesterov",
    "Schedule",
    "WarmupStableDecay",
    "parameter_groups",
    "scale_rates",
]
