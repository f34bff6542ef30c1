"""The LightningModules, one for each objective: loss, metrics, logging."""

from src.tasks.base import Task
from src.tasks.bert import BERTModule, LongformerModule, MLMModule
from src.tasks.classification import ClassificationModule
from src.tasks.gpt import GPTModule
from src.tasks.transformer import TransformerModule

__all__ = [
    "BERTModule",
    "ClassificationModule",
    "GPTModule",
    "LongformerModule",
    "MLMModule",
    "Task",
    "TransformerModule",
]
