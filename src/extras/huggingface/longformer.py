"""Longformer and HuggingFace's: with its masked-word head or without."""

# ruff: noqa: RUF012 -- the base class declares what is of the class

import re

from src.errors import InputError
from src.extras.huggingface.adapter import Settings
from src.extras.huggingface.json_files import list_setting, shown
from src.extras.huggingface.matches import Match, Tensors, head_by_head, layer
from src.extras.huggingface.roberta import RobertaPositions
from src.models import LongformerConfig

GLOBAL = """
Global attention is not in its configuration: this network was trained with it at the positions {positions} of each
input. Give `global_attention_mask` with a 1 there.
"""


class LongformerAdapter(RobertaPositions):
    """HuggingFace's network is RoBERTa's, and its window is that of both sides, here of one.

    Its pooler, which masked words do not train, has no counterpart.
    """

    architecture = "longformer"
    model_type = "longformer"
    classes = {
        "LongformerForMaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
        "LongformerModel": ("AutoModel", "feature-extraction"),
    }
    fixed = {"tie_word_embeddings": True, "hidden_act": "gelu"}  # as its head always has it
    only = {"dilation": 1, "activation": "gelu"}
    prefix = "longformer."
    buffers = re.compile(r"embeddings\.position_ids$|(^|\.)pooler\.dense\.")
    parts = {"masked_words": "lm_head."}

    def model_class(self, untrained: tuple[str, ...]) -> str:
        return "LongformerModel" if "masked_words" in untrained else "LongformerForMaskedLM"

    def read_fields(self, theirs: Settings, tensors: Tensors) -> Settings:
        windows = list_setting(theirs, "attention_window", int) or [512]
        if any(window < 2 or window % 2 for window in windows):
            raise InputError(f"config.json has attention_window {shown(windows)}: each must be even, and at least 2")
        sides = [window // 2 for window in windows]
        return {**super().read_fields(theirs, tensors), "window": sides[0] if len(set(sides)) == 1 else sides}

    def check(self, config: LongformerConfig) -> None:  # type: ignore[override]
        super().check(config)
        if 0 in self._sides(config):
            raise InputError("HuggingFace's longformer has no window of 0: the network cannot be exported")

    def write_config(self, config: LongformerConfig) -> Settings:
        sides = self._sides(config)
        return {**super().write_config(config), "attention_window": [2 * side for side in sides]}

    @staticmethod
    def _sides(config: LongformerConfig) -> list[int]:
        return config.window if isinstance(config.window, list) else [config.window] * config.n_layers

    def matches(self, config: LongformerConfig) -> list[Match]:  # type: ignore[override]
        kv = head_by_head(config.d_model, config.n_heads, 2)
        found = [
            *self.encoder_matches(config, ("masked_words.decoder.weight",), ("lm_head.decoder.weight",)),
            *layer("masked_words.dense", "lm_head.dense"),
            *layer("masked_words.norm", "lm_head.layer_norm"),
            Match("masked_words.decoder.bias", ("lm_head.bias",), aliases=("lm_head.decoder.bias",)),
        ]
        for i in range(config.n_layers):
            a, b = f"encoder.blocks.{i}.attention.", f"longformer.encoder.layer.{i}.attention.self."
            found += [
                *layer(a + "global_q", b + "query_global"),
                *layer(a + "global_kv", (b + "key_global", b + "value_global"), rows=kv),
            ]
        return found

    def note(self, checkpoint: Settings) -> str:
        return GLOBAL.format(positions=checkpoint["model_config"].get("global_tokens", [0]))
