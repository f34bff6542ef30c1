"""BERT of one segment and HuggingFace's RoBERTa (Liu et al. 2019), of norm ``pre`` and its RoBERTa-PreLayerNorm."""

# ruff: noqa: RUF012 -- the base class declares what is of the class

import re
from typing import ClassVar

import torch

from src.extras.huggingface.adapter import Exported, Imported, Settings
from src.extras.huggingface.bert import BERTAdapter, BERTClassifierAdapter, BiEncoderAdapter, MaskedWordsAdapter
from src.extras.huggingface.json_files import setting
from src.extras.huggingface.matches import Tensors
from src.models import BERTConfig

POSITIONS = "embeddings.position_embeddings.weight"


class RobertaPositions(BERTAdapter):
    """HuggingFace's positions are counted from the id of the padding token and one, here from 0.

    The rows before are left out on the way in, and are zeros on the way out.
    """

    token_ids: ClassVar[dict[str, str]] = {
        "pad_token_id": "pad_token",
        "bos_token_id": "cls_token",
        "eos_token_id": "sep_token",
        "sep_token_id": "sep_token",
    }

    def suits(self, config: BERTConfig) -> bool:
        return config.norm == self.norm

    def convert(self, theirs: Settings, tensors: Tensors) -> Imported:
        unused = setting(theirs, "pad_token_id", int, 1) + 1
        positions = setting(theirs, "max_position_embeddings", int, 512) - unused
        cut = {name: t[unused:] if name.endswith(POSITIONS) and t.dim() else t for name, t in tensors.items()}
        return super().convert({**theirs, "max_position_embeddings": positions}, cut)

    def write(
        self, config: BERTConfig, weights: Tensors, tokens: Settings, untrained: tuple[str, ...] = ()
    ) -> Exported:
        exported = super().write(config, weights, tokens, untrained)
        unused = tokens["pad_token_id"] + 1
        exported.config["max_position_embeddings"] += unused
        for name, table in exported.tensors.items():
            if name.endswith(POSITIONS):
                exported.tensors[name] = torch.cat([table.new_zeros(unused, table.shape[1]), table])
        return exported


class Roberta(RobertaPositions):
    """RoBERTa is a BERT whose published networks have one segment: by that it is told from a BERT."""

    model_type = "roberta"
    programs: ClassVar[tuple[str, ...]] = ("sentence-transformers",)
    prefix = "roberta."
    buffers = re.compile(r"embeddings\.(position|token_type)_ids$")

    def suits(self, config: BERTConfig) -> bool:
        return super().suits(config) and config.n_segments == 1 and config.activation == "gelu"


class RobertaMaskedWords(MaskedWordsAdapter):
    """The head for masked words by RoBERTa's names."""

    head, has_pooler = ("lm_head.dense", "lm_head.layer_norm"), True
    decoder, decoder_bias = "lm_head.decoder", "lm_head.bias"
    parts = {"encoder.pooler": "roberta.pooler.", "masked_words": "lm_head.", "next_sentence": "next_sentence."}


class RobertaAdapter(Roberta, RobertaMaskedWords):
    """With the head for masked words, or without it and with a pooler."""

    classes = {
        "RobertaForMaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
        "RobertaModel": ("AutoModel", "feature-extraction"),
    }
    fixed: ClassVar[Settings] = {**BERTAdapter.fixed, "hidden_act": "gelu"}  # as its head always has it
    only: ClassVar[Settings] = {**BERTAdapter.only, "activation": "gelu"}


class RobertaClassifierAdapter(Roberta, BERTClassifierAdapter):
    """With a classifier, whose first layer is the pooler here."""

    classes = {"RobertaForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification")}
    head = ("classifier.dense", "classifier.out_proj")


class RobertaBiEncoderAdapter(Roberta, BiEncoderAdapter):
    """A retriever's encoder, without HuggingFace's pooler."""

    classes = {"RobertaModel": ("AutoModel", "feature-extraction")}
    parts = {"encoder.pooler": "roberta.pooler."}


class PreNorm(RobertaPositions):
    """RoBERTa-PreLayerNorm (Wettig et al. 2022) norms its embeddings, and then each sub-layer's input and the output.

    Of HuggingFace's networks it alone does both, has segments, and attends both ways.
    """

    model_type = "roberta-prelayernorm"
    programs: ClassVar[tuple[str, ...]] = ("ONNX Runtime",)
    norm = "pre"
    layer_names: ClassVar[dict[str, str | tuple[str, ...]]] = {
        **BERTAdapter.layer_names,
        "attention_norm": "attention.LayerNorm",
        "feed_forward_norm": "intermediate.LayerNorm",
    }
    prefix = "roberta_prelayernorm."
    buffers = Roberta.buffers

    def suits(self, config: BERTConfig) -> bool:
        return config.norm == self.norm


class PreNormBERTAdapter(PreNorm, RobertaAdapter):
    """With the head for masked words, or without it and with a pooler."""

    classes = {
        "RobertaPreLayerNormForMaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
        "RobertaPreLayerNormModel": ("AutoModel", "feature-extraction"),
    }
    parts = {**RobertaAdapter.parts, "encoder.pooler": "roberta_prelayernorm.pooler."}


class PreNormClassifierAdapter(PreNorm, RobertaClassifierAdapter):
    """With a classifier, whose first layer is the pooler here."""

    programs = PreNorm.programs
    classes = {
        "RobertaPreLayerNormForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification")
    }


class PreNormBiEncoderAdapter(PreNorm, RobertaBiEncoderAdapter):
    """A retriever's encoder, without HuggingFace's pooler."""

    programs: ClassVar[tuple[str, ...]] = BiEncoderAdapter.programs
    classes = {"RobertaPreLayerNormModel": ("AutoModel", "feature-extraction")}
    parts = {"encoder.pooler": "roberta_prelayernorm.pooler."}
