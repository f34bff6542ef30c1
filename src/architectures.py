"""The registry of architectures: one entry for each, by the name that its checkpoints carry."""

from functools import cache
from typing import Any, NamedTuple

from torch import nn

from src.discovery import parts
from src.models import (
    BERT,
    GPT,
    BERTClassifier,
    BERTClassifierConfig,
    BERTConfig,
    GPTConfig,
    Longformer,
    LongformerConfig,
    Transformer,
    TransformerConfig,
)


class Architecture(NamedTuple):
    """What the rest of the project asks of an architecture.

    Args:
        config: the dataclass of its shape.
        network: built of a config alone.
    """

    config: type[Any]
    network: type[nn.Module]


CORE = {
    "gpt": Architecture(GPTConfig, GPT),
    "bert": Architecture(BERTConfig, BERT),
    "bert_classifier": Architecture(BERTClassifierConfig, BERTClassifier),
    "longformer": Architecture(LongformerConfig, Longformer),
    "transformer": Architecture(TransformerConfig, Transformer),
}


@cache
def architectures() -> dict[str, Architecture]:
    """Map every name to its entry, those of the extras among them."""
    return CORE | {name: entry for part in parts("architectures") for name, entry in part.ARCHITECTURES.items()}
