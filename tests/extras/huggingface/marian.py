"""HuggingFace's Marian, the reference for the Transformer: a random one, and its weights in ours."""

import torch
from transformers import MarianConfig, MarianMTModel

from src.extras.huggingface.adapters import ADAPTERS
from src.models import Transformer, TransformerConfig


def marian(ours: TransformerConfig, std=0.3, seed=0) -> MarianMTModel:
    """A random Marian of the same shape; its end token is 1, its start and padding token 0."""
    torch.manual_seed(seed)
    config = MarianConfig(
        vocab_size=ours.source_vocab_size or ours.vocab_size,
        decoder_vocab_size=ours.vocab_size,
        max_position_embeddings=ours.max_seq_len,
        d_model=ours.d_model,
        encoder_layers=ours.n_encoder_layers,
        decoder_layers=ours.n_decoder_layers,
        encoder_attention_heads=ours.n_heads,
        decoder_attention_heads=ours.n_heads,
        encoder_ffn_dim=ours.d_ff,
        decoder_ffn_dim=ours.d_ff,
        activation_function="relu",
        scale_embedding=True,
        share_encoder_decoder_embeddings=ours.tie_embeddings,
        tie_word_embeddings=ours.tie_embeddings,
        init_std=std,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        forced_eos_token_id=None,
    )
    return MarianMTModel(config).eval()


def from_huggingface(theirs: MarianMTModel, ours: Transformer) -> None:
    """Copy Marian's weights."""
    (adapter, *_) = ADAPTERS["transformer"]
    ours.load_state_dict(adapter.read(theirs.config.to_dict(), theirs.state_dict()).weights)
