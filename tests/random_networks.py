"""Random networks of each architecture, with their tokenizers, as checkpoints; and batches with padding."""

from dataclasses import replace
from typing import Any

import torch

from src.architectures import architectures
from src.models import BERTClassifierConfig, BERTConfig, GPTConfig, LongformerConfig, TransformerConfig
from src.tokenization import END_OF_TEXT, bert_tokens, train_bpe, train_wordpiece

TEXT = ["the cat sat on a mat while seven grey dogs ran over old stone bridges and nobody said one word"]
BPE, WORDPIECE = train_bpe(TEXT, 300), train_wordpiece(TEXT, 80)
# of an untrained network every logit is near 0: these are of the size of a trained one's
STD = 0.1
SHAPE = {"max_seq_len": 24, "d_model": 32, "n_heads": 4}
AS_LLAMA: dict[str, Any] = {
    "norm_type": "rms",
    "positions": "rotary",
    "bias": False,
    "gated": True,
    "activation": "swish",
}
MODERN: dict[str, Any] = {  # as ModernBERT's
    "norm": "pre",
    "first_norm": False,
    "bias": False,
    "n_segments": 0,
    "activation": "geglu",
    "d_ff": 48,
    "positions": "rotary",
    "rope_base": 16e4,
    "rope_local_base": 1e4,
    "window": 3,
    "window_pattern": "GL",
}
AS_BART: dict[str, Any] = {
    "positions": "learned",
    "shared_positions": False,
    "embedding_norm": True,
    "scale_embeddings": False,
    "activation": "gelu",
}
CONFIGS = {
    "gpt": GPTConfig(300, n_layers=2, **SHAPE),
    "gpt untied": GPTConfig(300, n_layers=2, tie_embeddings=False, d_ff=48, activation="swish", **SHAPE),
    "gpt without biases": GPTConfig(300, n_layers=2, bias=False, **SHAPE),
    "gpt with rotary positions": GPTConfig(300, n_layers=2, positions="rotary", activation="gelu", **SHAPE),
    "gpt of a llama": GPTConfig(300, n_layers=2, n_kv_heads=2, mlp_bias=True, **AS_LLAMA, **SHAPE),
    "gpt of a mistral": GPTConfig(
        300, n_layers=2, window=6, head_dim=8, **{**AS_LLAMA, **SHAPE, "d_model": 30, "activation": "geglu"}
    ),
    "gpt of a qwen3": GPTConfig(
        300, n_layers=3, n_kv_heads=1, head_dim=12, qk_norm=True, window=6, window_pattern="LG", **AS_LLAMA, **SHAPE
    ),
    "bert": BERTConfig(80, n_layers=2, activation="prelu", **SHAPE),
    "bert of norm pre": BERTConfig(80, n_layers=2, norm="pre", **SHAPE),
    "bert of one segment": BERTConfig(80, n_layers=2, n_segments=1, **SHAPE),
    "bert without segments": BERTConfig(80, n_layers=2, n_segments=0, activation="relu", **SHAPE),
    "bert with today's choices": BERTConfig(80, n_layers=3, **MODERN, **SHAPE),
    "bert_classifier of one segment": BERTClassifierConfig(80, n_layers=2, n_labels=3, n_segments=1, **SHAPE),
    "bert_classifier of norm pre": BERTClassifierConfig(80, n_layers=2, n_labels=3, norm="pre", **SHAPE),
    "bert_classifier": BERTClassifierConfig(80, n_layers=2, n_labels=3, **SHAPE),
    "longformer": LongformerConfig(80, n_layers=2, window=[2, 4], **SHAPE),
    "transformer": TransformerConfig(300, 300, n_encoder_layers=1, n_decoder_layers=2, **SHAPE),
    "transformer tied": TransformerConfig(
        300, 300, n_encoder_layers=2, n_decoder_layers=1, tie_embeddings=True, activation="gelu_tanh", **SHAPE
    ),
    "transformer of learned positions": TransformerConfig(
        300, 300, n_encoder_layers=1, n_decoder_layers=2, tie_embeddings=True, **AS_BART, **SHAPE
    ),
    "transformer of norm pre": TransformerConfig(
        300, 300, n_encoder_layers=2, n_decoder_layers=1, tie_embeddings=True, norm="pre", **SHAPE
    ),
    "transformer of an odd width": TransformerConfig(
        300, 300, n_encoder_layers=1, n_decoder_layers=1, **{**SHAPE, "d_model": 33, "n_heads": 3}
    ),
}


def checkpoint_of(name: str, **changes):
    """A random network and its checkpoint, as a run writes it."""
    config = replace(CONFIGS[name], **changes)
    architecture = name.split()[0]
    torch.manual_seed(0)
    model = architectures()[architecture].network(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * STD
    is_encoder = "bert" in architecture or architecture == "longformer"
    tokenizer = WORDPIECE if is_encoder else BPE
    special = {"eos_token": END_OF_TEXT, "decoder_start_token": END_OF_TEXT}
    return model, {
        "architecture": architecture,
        "model_config": vars(config),
        "state_dict": {f"model.{key}": tensor for key, tensor in model.state_dict().items()},
        "tokenizer": tokenizer.to_str(),
        "source_tokenizer": tokenizer.to_str(),
        "special_tokens": bert_tokens(tokenizer) if is_encoder else special,
        "config": "experiment: test",
        "global_step": 7,
    }


def padded(lengths, width, vocab_size, seed=0):
    """Random ids (none of the special ones) and the attention mask of rows of these lengths, padded on the right."""
    ids = torch.randint(2, vocab_size, (len(lengths), width), generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask
