"""Data of retrievers and rerankers."""

from src.extras.retrieval.data.ranking import RankingDataModule, RerankerDataModule, RetrieverDataModule

__all__ = ["RankingDataModule", "RerankerDataModule", "RetrieverDataModule"]
