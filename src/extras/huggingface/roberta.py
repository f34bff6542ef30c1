"""BERT of norm ``pre`` and HuggingFace's RoBERTa-PreLayerNorm; and the positions of all that is made after RoBERTa."""

# ruff: noqa: RUF012 -- the base class declares what is of the class

import re
from typing import ClassVar

import torch
from tokenizers import Tokenizer

from src.extras.huggingface.adapter import Exported, Imported, Match, Settings, Tensors, layer
from src.extras.huggingface.bert import BERTAdapter, BERTClassifierAdapter, BiEncoderAdapter
from src.extras.huggingface.json_files import setting
from src.models import BERTConfig
from src.tokenization import bert_ids

POSITIONS = "embeddings.position_embeddings.weight"


class RobertaPositions(BERTAdapter):
    """HuggingFace's positions are counted from the id of the padding token and one, here from 0.

    The rows before are left out on the way in, and are zeros on the way out.
    """

    def read(self, theirs: Settings, tensors: Tensors) -> Imported:
        unused = setting(theirs, "pad_token_id", int, 1) + 1
        positions = setting(theirs, "max_position_embeddings", int, 512) - unused
        cut = {name: t[unused:] if name.endswith(POSITIONS) else t for name, t in tensors.items()}
        return super().read({**theirs, "max_position_embeddings": positions}, cut)

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

    def config_tokens(self, checkpoint: Settings) -> Settings:
        ids = bert_ids(Tokenizer.from_str(checkpoint["tokenizer"]))
        names = {"pad_token_id": "pad", "bos_token_id": "cls", "eos_token_id": "sep", "sep_token_id": "sep"}
        return {**super().config_tokens(checkpoint), **{key: ids[f"{name}_token"] for key, name in names.items()}}


class PreNorm(RobertaPositions):
    """RoBERTa-PreLayerNorm (Wettig et al. 2022) norms its embeddings, and then each sub-layer's input and the output.

    Of HuggingFace's networks it alone does both, has segments, and attends both ways.
    """

    model_type = "roberta-prelayernorm"
    programs: ClassVar[tuple[str, ...]] = ("ONNX Runtime",)
    norm = "pre"
    norms = ("attention.LayerNorm", "intermediate.LayerNorm")
    prefix = "roberta_prelayernorm."
    buffers = re.compile(r"embeddings\.(position|token_type)_ids$")


class PreNormBERTAdapter(PreNorm):
    """With the head for masked words, which has neither a pooler nor a head for next sentences beside it."""

    classes = {
        "RobertaPreLayerNormForMaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
        "RobertaPreLayerNormModel": ("AutoModel", "feature-extraction"),
    }
    fixed = {**BERTAdapter.fixed, "hidden_act": "gelu"}  # as its head always has it
    only = {**BERTAdapter.only, "activation": "gelu"}
    parts = {
        "encoder.pooler": "roberta_prelayernorm.pooler.",
        "masked_words": "lm_head.",
        "next_sentence": "next_sentence.",
    }

    def model_class(self, untrained: tuple[str, ...]) -> str:
        return "RobertaPreLayerNormModel" if "masked_words" in untrained else "RobertaPreLayerNormForMaskedLM"

    def left_out(self, untrained: tuple[str, ...] = ()) -> tuple[str, ...]:
        parts = ("next_sentence",) if "masked_words" in untrained else ("encoder.pooler", "next_sentence")
        return tuple(part for part in parts if part not in untrained)

    def matches(self, config: BERTConfig) -> list[Match]:
        return [
            *self.encoder_matches(config, ("masked_words.decoder.weight",), ("lm_head.decoder.weight",)),
            *layer("encoder.pooler", "roberta_prelayernorm.pooler.dense"),
            *layer("masked_words.dense", "lm_head.dense"),
            *layer("masked_words.norm", "lm_head.layer_norm"),
            Match("masked_words.decoder.bias", ("lm_head.bias",), aliases=("lm_head.decoder.bias",)),
            *layer("next_sentence", "next_sentence"),
        ]


class PreNormClassifierAdapter(PreNorm, BERTClassifierAdapter):
    """With a classifier, whose first layer is the pooler here."""

    classes = {
        "RobertaPreLayerNormForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification")
    }
    head = ("classifier.dense", "classifier.out_proj")


class PreNormBiEncoderAdapter(PreNorm, BiEncoderAdapter):
    """A retriever's encoder, without HuggingFace's pooler."""

    programs = BiEncoderAdapter.programs
    classes = {"RobertaPreLayerNormModel": ("AutoModel", "feature-extraction")}
    parts = {"encoder.pooler": "roberta_prelayernorm.pooler."}
