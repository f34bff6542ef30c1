"""The registry of architectures: one entry for each, by the name that its checkpoints carry."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from src.discovery import parts
from src.models import (
    BERT,
    GPT,
    BERTClassifier,
    BERTClassifierConfig,
    BERTConfig,
    BERTEncoder,
    GPTConfig,
    Longformer,
    LongformerConfig,
    Transformer,
    TransformerConfig,
)
from src.models.longformer import LongformerEncoder
from src.models.network import Network
from src.tokenization import BERT_SPELLINGS

Writing = Literal["generate", "translate", "fill-mask", "classify"]


class Architecture(NamedTuple):
    """What the rest of the project asks of an architecture.

    Args:
        config: the dataclass of its shape.
        network: built of a config alone.
        task: the name of the class that trains it.
        data: the name of the class that it is trained on.
        special_tokens: what its checkpoints name.
        tokenizers: the keys of its checkpoints that hold one.
        writes: the verb that writes text or labels with it; None for one that writes none.
        encoder: built of a config alone: what `embed` and fine-tuning take over of it, the submodule ``encoder`` of
            the network; None where there is none to take over.
        extended: the architecture that `extend-context` makes of it, if it can.
    """

    config: type[Any]
    network: type[Network]
    task: str
    data: str
    special_tokens: tuple[str, ...] = tuple(BERT_SPELLINGS)
    tokenizers: tuple[str, ...] = ("tokenizer",)
    writes: Writing | None = None
    encoder: Callable[..., BERTEncoder] | None = None
    extended: str | None = None


ARCHITECTURES = {
    "gpt": Architecture(
        *(GPTConfig, GPT, "GPTModule", "LMDataModule"), special_tokens=("eos_token",), writes="generate", extended="gpt"
    ),
    "bert": Architecture(
        *(BERTConfig, BERT, "BERTModule", "MLMDataModule"),
        writes="fill-mask",
        encoder=BERTEncoder,
        extended="longformer",
    ),
    "bert_classifier": Architecture(
        *(BERTClassifierConfig, BERTClassifier, "ClassificationModule", "ClassificationDataModule"), writes="classify"
    ),
    "longformer": Architecture(
        *(LongformerConfig, Longformer, "LongformerModule", "MLMDataModule"),
        writes="fill-mask",
        encoder=LongformerEncoder,
        extended="longformer",
    ),
    "transformer": Architecture(
        *(TransformerConfig, Transformer, "TransformerModule", "TranslationDataModule"),
        special_tokens=("eos_token", "decoder_start_token"),
        tokenizers=("tokenizer", "source_tokenizer"),
        writes="translate",
    ),
}


def register(name: str, entry: Architecture) -> None:
    """Add an architecture of one's own, on import of its module."""
    ARCHITECTURES[name] = entry


def architectures() -> dict[str, Architecture]:
    """Map every name to its entry, those of the extras among them."""
    for part in parts("architectures"):
        ARCHITECTURES.update(part.ARCHITECTURES)
    return ARCHITECTURES
