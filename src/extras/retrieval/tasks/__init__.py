"""The LightningModules of retrieval."""

from src.extras.retrieval.tasks.reranker import RerankerModule
from src.extras.retrieval.tasks.retriever import RetrieverModule

__all__ = ["RerankerModule", "RetrieverModule"]
