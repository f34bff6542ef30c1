"""Random networks of HuggingFace's for :mod:`tests.extras.huggingface.networks`: DistilBERT, ModernBERT, Jina."""

import torch
from tokenizers import Tokenizer
from transformers import (
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertModel,
    JinaEmbeddingsV3Config,
    JinaEmbeddingsV3ForMaskedLM,
    JinaEmbeddingsV3ForSequenceClassification,
    JinaEmbeddingsV3Model,
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertModel,
    PreTrainedModel,
)

from tests.random_networks import STD

DISTILBERTS = {"masked words": DistilBertForMaskedLM, "encoder": DistilBertModel}
MODERNBERTS = {"masked words": ModernBertForMaskedLM, "encoder": ModernBertModel}
JINAS = {
    "masked words": JinaEmbeddingsV3ForMaskedLM,
    "encoder": JinaEmbeddingsV3Model,
    "classifier": JinaEmbeddingsV3ForSequenceClassification,
}
SPECIAL = {"pad": "[PAD]", "bos": "[CLS]", "cls": "[CLS]", "eos": "[SEP]", "sep": "[SEP]"}


def shaken(model: PreTrainedModel) -> PreTrainedModel:
    """The model with biases and norms that are not 0 and 1, which would hide a swap of two of them."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += torch.randn_like(parameter) / 5
    return model.eval()


def distilbert(tokenizer: Tokenizer, kind: str = "masked words", **changes) -> PreTrainedModel:
    torch.manual_seed(0)
    settings = {
        "vocab_size": tokenizer.get_vocab_size(),
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 48,
        "max_position_embeddings": 24,
        "initializer_range": STD,
        "pad_token_id": tokenizer.token_to_id("[PAD]"),
    }
    return shaken(DISTILBERTS[kind](DistilBertConfig(**{**settings, **changes})))


def modernbert(tokenizer: Tokenizer, kind: str = "masked words", **changes) -> PreTrainedModel:
    torch.manual_seed(0)
    settings = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 24,
        "local_attention": 8,
        "initializer_range": STD,
        **{f"{name}_token_id": tokenizer.token_to_id(token) for name, token in SPECIAL.items()},
    }
    return shaken(MODERNBERTS[kind](ModernBertConfig(**{**settings, **changes})))


def jina(tokenizer: Tokenizer, kind: str = "masked words", **changes) -> PreTrainedModel:
    torch.manual_seed(0)
    settings = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 24,
        "type_vocab_size": 2,
        "initializer_range": STD,
        **{f"{name}_token_id": tokenizer.token_to_id(SPECIAL[name]) for name in ("pad", "bos", "eos")},
    }
    return shaken(JINAS[kind](JinaEmbeddingsV3Config(**{**settings, **changes})))
