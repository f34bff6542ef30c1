"""The LightningModules, one for each architecture: objective, metrics, logging."""

from src.tasks.base import Task
from src.tasks.bert import BERTModule
from src.tasks.classification import ClassificationModule
from src.tasks.gpt import GPTModule
from src.tasks.longformer import LongformerModule
from src.tasks.transformer import TransformerModule

__all__ = [
    "BERTModule",
    "ClassificationModule",
    "GPTModule",
    "LongformerModule",
    "Task",
    "TransformerModule",
]
