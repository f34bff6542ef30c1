"""BERT without segments and HuggingFace's DistilBERT (Sanh et al. 2019)."""

# ruff: noqa: RUF012 -- the base class declares what is of the class

from typing import ClassVar

from src.extras.huggingface.adapter import Settings
from src.extras.huggingface.bert import BERTAdapter, BiEncoderAdapter, MaskedWordsAdapter
from src.extras.huggingface.matches import Tensors
from src.models import BERTConfig


class DistilBERT(BERTAdapter):
    """DistilBERT is a BERT without segments and pooler; its norms add 1e-12, as by default here.

    Its classifier has a ReLU where BERT's, and the one here, has tanh: it is not read.
    """

    model_type = "distilbert"
    programs: ClassVar[tuple[str, ...]] = ("CTranslate2",)
    keys = {
        "vocab_size": ("vocab_size", 30522),
        "max_seq_len": ("max_position_embeddings", 512),
        "d_model": ("dim", 768),
        "n_heads": ("n_heads", 12),
        "n_layers": ("n_layers", 6),
        "d_ff": ("hidden_dim", 3072),
        "dropout": ("dropout", 0.1),
        "attention_dropout": ("attention_dropout", 0.1),
        "init_std": ("initializer_range", 0.02),
    }
    aliases: ClassVar[dict[str, str]] = {
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
    }
    activation = ("activation", "gelu")
    fixed = {"sinusoidal_pos_embds": False, "tie_word_embeddings": True}
    only = {**BERTAdapter.only, "n_segments": 0}
    layers = "transformer.layer"
    layer_names = {
        "attention.qkv": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        "attention.out": "attention.out_lin",
        "attention_norm": "sa_layer_norm",
        "feed_forward.up": "ffn.lin1",
        "feed_forward.down": "ffn.lin2",
        "feed_forward_norm": "output_layer_norm",
    }
    layer_activation = "ffn.activation"
    prefix = "distilbert."

    def read_fields(self, theirs: Settings, tensors: Tensors) -> Settings:
        return {**super().read_fields(theirs, tensors), "n_segments": 0}

    def suits(self, config: BERTConfig) -> bool:
        return config.norm == self.norm and not config.n_segments


class DistilBERTAdapter(DistilBERT, MaskedWordsAdapter):
    """With the head for masked words, or without."""

    classes = {
        "DistilBertForMaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
        "DistilBertModel": ("AutoModel", "feature-extraction"),
    }
    head, head_activation = ("vocab_transform", "vocab_layer_norm"), "activation"
    decoder, decoder_bias = "vocab_projector", "vocab_projector.bias"
    parts = {
        "encoder.pooler": "distilbert.pooler.",
        "masked_words": ("vocab_", "activation."),
        "next_sentence": "next_sentence.",
    }


class DistilBiEncoderAdapter(DistilBERT, BiEncoderAdapter):
    """A retriever's encoder."""

    programs = ("sentence-transformers",)
    classes = {"DistilBertModel": ("AutoModel", "feature-extraction")}
    parts = {"encoder.pooler": "distilbert.pooler."}
