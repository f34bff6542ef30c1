"""The LightningModules, one for each architecture: objective, metrics, logging."""

from src.tasks.base import Task
from src.tasks.gpt import GPTModule

__all__ = ["GPTModule", "Task"]
