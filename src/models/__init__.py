"""The networks, one file each. Plain torch, usable without Lightning."""

from src.models.bert import (
    BERT,
    BERTClassifier,
    BERTClassifierConfig,
    BERTConfig,
    BERTEncoder,
    mean_pool,
)
from src.models.gpt import GPT, GPTConfig
from src.models.longformer import Longformer, LongformerConfig
from src.models.transformer import Transformer, TransformerConfig

__all__ = [
    "BERT",
    "GPT",
    "BERTClassifier",
    "BERTClassifierConfig",
    "BERTConfig",
    "BERTEncoder",
    "GPTConfig",
    "Longformer",
    "LongformerConfig",
    "Transformer",
    "TransformerConfig",
    "mean_pool",
]
