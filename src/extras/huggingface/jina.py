"""BERT with rotary positions and HuggingFace's JinaEmbeddingsV3 (Sturua et al. 2024), without its adapters."""

# ruff: noqa: RUF012 -- the base class declares what is of the class

import re
from typing import ClassVar

from src.extras.huggingface.adapter import Adapter, Settings
from src.extras.huggingface.bert import BERTAdapter, BERTClassifierAdapter, BiEncoderAdapter
from src.extras.huggingface.matches import Tensors
from src.extras.huggingface.roberta import RobertaMaskedWords, RobertaPositions
from src.extras.huggingface.rope import check_rope, read_rope, write_rope
from src.models import BERTConfig

ROPE_BASE = ("rope_theta", 2e4)  # and what it is where config.json leaves it out


class Jina(BERTAdapter):
    """Of HuggingFace's networks the one that is the paper's BERT, with segments, but for how it knows positions."""

    model_type = "jina_embeddings_v3"
    programs: ClassVar[tuple[str, ...]] = ("sentence-transformers",)
    keys = {
        **BERTAdapter.keys,
        "vocab_size": ("vocab_size", 250002),
        "max_seq_len": ("max_position_embeddings", 8194),
        "n_segments": ("type_vocab_size", 1),
        "d_model": ("hidden_size", 1024),
        "n_heads": ("num_attention_heads", 16),
        "n_layers": ("num_hidden_layers", 24),
        "d_ff": ("intermediate_size", 4096),
        "norm_eps": ("layer_norm_eps", 1e-5),
    }
    fixed: ClassVar[Settings] = {"tie_word_embeddings": True}
    only: ClassVar[Settings] = {"window": None, "positions": "rotary"}
    handled = Adapter.handled | {"rope_base", "rope_scaling", "rope_factor", "rope_original_len"}
    token_ids = {name: token for name, token in RobertaPositions.token_ids.items() if name != "sep_token_id"}
    embedding_norm, layers = "emb_ln", "encoder.layers"
    # of the files, which transformers reads as modules of other names
    layer_names = {
        "attention.qkv": "mixer.Wqkv",
        "attention.out": "mixer.out_proj",
        "attention_norm": "norm1",
        "feed_forward.up": "mlp.fc1",
        "feed_forward.down": "mlp.fc2",
        "feed_forward_norm": "norm2",
    }
    layer_activation = "mlp.activation_fn"
    prefix = "roberta."
    buffers = re.compile(r"rotary_emb\.|embeddings\.(position|token_type)_ids$")

    def read_fields(self, theirs: Settings, tensors: Tensors) -> Settings:
        fields = super().read_fields(theirs, tensors)
        key, default = ROPE_BASE
        known = theirs if theirs.get(key) is not None else {**theirs, key: default}
        return {**fields, **read_rope(known, fields["max_seq_len"])}

    def suits(self, config: BERTConfig) -> bool:
        return config.norm == self.norm and config.positions == "rotary" and not config.is_gated

    def check(self, config: BERTConfig) -> None:
        super().check(config)
        check_rope(config, self.model_type)

    def write_config(self, config: BERTConfig) -> Settings:
        return {**super().write_config(config), **write_rope(config)}


class JinaAdapter(Jina, RobertaMaskedWords):
    """With the head for masked words, or without it and with a pooler."""

    classes = {
        "JinaEmbeddingsV3ForMaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
        "JinaEmbeddingsV3Model": ("AutoModel", "feature-extraction"),
    }
    fixed: ClassVar[Settings] = {**Jina.fixed, "hidden_act": "gelu"}  # as its head always has it
    only: ClassVar[Settings] = {**Jina.only, "activation": "gelu"}


class JinaClassifierAdapter(Jina, BERTClassifierAdapter):
    """With a classifier, whose first layer is the pooler here."""

    classes = {
        "JinaEmbeddingsV3ForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification")
    }
    head = ("classifier.dense", "classifier.out_proj")


class JinaBiEncoderAdapter(Jina, BiEncoderAdapter):
    """A retriever's encoder, without HuggingFace's pooler."""

    classes = {"JinaEmbeddingsV3Model": ("AutoModel", "feature-extraction")}
    parts = {"encoder.pooler": "roberta.pooler."}
