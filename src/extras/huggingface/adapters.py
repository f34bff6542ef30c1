"""The registry of adapters, and which of them writes a network."""

from typing import Any

from src.errors import InputError
from src.extras.huggingface.adapter import Adapter
from src.extras.huggingface.bart import BARTAdapter
from src.extras.huggingface.bert import BERTAdapter, BERTClassifierAdapter, BiEncoderAdapter
from src.extras.huggingface.distilbert import DistilBERTAdapter, DistilBiEncoderAdapter
from src.extras.huggingface.gpt2 import GPT2Adapter
from src.extras.huggingface.gpt_neox import GPTNeoXAdapter
from src.extras.huggingface.jina import JinaAdapter, JinaBiEncoderAdapter, JinaClassifierAdapter
from src.extras.huggingface.llama import LlamaAdapter, MistralAdapter
from src.extras.huggingface.longformer import LongformerAdapter
from src.extras.huggingface.marian import MarianAdapter, PegasusAdapter
from src.extras.huggingface.modernbert import ModernBERTAdapter, ModernBiEncoderAdapter
from src.extras.huggingface.qwen3 import Qwen3Adapter
from src.extras.huggingface.roberta import (
    PreNormBERTAdapter,
    PreNormBiEncoderAdapter,
    PreNormClassifierAdapter,
    RobertaAdapter,
    RobertaBiEncoderAdapter,
    RobertaClassifierAdapter,
)

# architecture -> one adapter for each format it has at HuggingFace; an architecture of one's own may add its own
ADAPTERS: dict[str, tuple[Adapter, ...]] = {
    "gpt": (GPT2Adapter(), GPTNeoXAdapter(), LlamaAdapter(), MistralAdapter(), Qwen3Adapter()),
    "bert": (
        *(BERTAdapter(), JinaAdapter(), RobertaAdapter(), DistilBERTAdapter(), ModernBERTAdapter()),
        PreNormBERTAdapter(),
    ),
    "bert_classifier": (
        *(BERTClassifierAdapter(), JinaClassifierAdapter(), RobertaClassifierAdapter()),
        PreNormClassifierAdapter(),
    ),
    "bi_encoder": (
        *(BiEncoderAdapter(), JinaBiEncoderAdapter(), RobertaBiEncoderAdapter(), DistilBiEncoderAdapter()),
        *(ModernBiEncoderAdapter(), PreNormBiEncoderAdapter()),
    ),
    "longformer": (LongformerAdapter(),),
    "transformer": (MarianAdapter(), BARTAdapter(), PegasusAdapter()),
}


def adapter_of(architecture: str, config: Any) -> Adapter:
    """Choose what writes a network of a shape; an `InputError` says why nothing does."""
    if architecture not in ADAPTERS:
        raise InputError(f"HuggingFace has no counterpart of a {architecture}: only {', '.join(ADAPTERS)} have one")
    formats = ADAPTERS[architecture]
    adapter = next((adapter for adapter in formats if adapter.suits(config)), formats[0])
    adapter.check(config)
    return adapter
