"""Longformer and HuggingFace's: with its masked-word head or without."""

import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from src.errors import InputError
from src.extras.huggingface.adapter import Adapter, Exported, Imported
from src.extras.huggingface.bert import BERTAdapter, encoder_matches
from src.extras.huggingface.matching import Match, Tensors, head_by_head, layer
from src.extras.huggingface.settings import list_setting, setting
from src.models import LongformerConfig

POSITIONS = "embeddings.position_embeddings.weight"


class LongformerAdapter(Adapter):
    """HuggingFace's network is RoBERTa's: its positions are counted from the id of the padding token and one.

    Here they are counted from 0: the rows before are left out on the way in, and are zeros on the way out. Its window
    is that of both sides, here of one. Its pooler, which masked words do not train, has no counterpart.
    """

    architecture = "longformer"
    table = replace(
        BERTAdapter.table,
        model_type="longformer",
        fixed={"tie_word_embeddings": True, "hidden_act": "gelu"},  # which its masked-word head always has
        only={"dilation": 1, "activation": "gelu"},
    )
    reads = ("LongformerForMaskedLM", "LongformerModel")
    prefix = "longformer."
    derived = re.compile(r"embeddings\.position_ids$|(^|\.)pooler\.dense\.")

    def parts(self) -> dict[str, str]:
        return {"masked_words": "lm_head."}

    def model_class(self, untrained: tuple[str, ...]) -> str:
        return "LongformerModel" if "masked_words" in untrained else "LongformerForMaskedLM"

    def read_fields(self, theirs: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
        sides = [window // 2 for window in list_setting(theirs, "attention_window", int) or [512]]
        return {**super().read_fields(theirs, tensors), "window": sides[0] if len(set(sides)) == 1 else sides}

    def write_config(self, config: LongformerConfig) -> dict[str, Any]:
        """As the base class, with HuggingFace's windows."""
        sides = config.window if isinstance(config.window, list) else [config.window] * config.n_layers
        if 0 in sides:
            raise InputError("HuggingFace's longformer has no window of 0: the network cannot be exported")
        return {**super().write_config(config), "attention_window": [2 * side for side in sides]}

    def read(self, theirs: dict[str, Any], tensors: Tensors) -> Imported:
        """As the base class, without the positions that no token has."""
        unused = setting(theirs, "pad_token_id", int, 1) + 1
        positions = setting(theirs, "max_position_embeddings", int, 512) - unused
        cut = {name: t[unused:] if name.endswith(POSITIONS) else t for name, t in tensors.items()}
        return super().read({**theirs, "max_position_embeddings": positions}, cut)

    def with_tokens(self, exported: Exported, tokens: dict[str, Any]) -> Exported:
        """Add the positions that no token has, too."""
        unused = tokens["pad_token_id"] + 1
        positions = exported.config["max_position_embeddings"] + unused
        tensors = {n: _with_rows(t, unused) if n.endswith(POSITIONS) else t for n, t in exported.tensors.items()}
        exported = Exported({**exported.config, "max_position_embeddings": positions}, tensors)
        return super().with_tokens(exported, tokens)

    def tied(self, config: LongformerConfig) -> dict[str, str]:
        return {"masked_words.decoder.weight": "encoder.token_embedding.weight"}

    def same(self, config: LongformerConfig) -> dict[str, str]:
        return {
            "lm_head.decoder.weight": "longformer.embeddings.word_embeddings.weight",
            "lm_head.decoder.bias": "lm_head.bias",
        }

    def matches(self, config: LongformerConfig) -> list[Match]:
        kv = head_by_head(config.d_model, config.n_heads, 2)
        found = [
            *encoder_matches(config, self.prefix),
            *layer("masked_words.dense", "lm_head.dense"),
            *layer("masked_words.norm", "lm_head.layer_norm"),
            Match("masked_words.decoder.bias", ("lm_head.bias",)),
        ]
        for i in range(config.n_layers):
            a, b = f"encoder.blocks.{i}.attention.", f"longformer.encoder.layer.{i}.attention.self."
            found += [
                *layer(a + "global_q", b + "query_global"),
                *layer(a + "global_kv", (b + "key_global", b + "value_global"), rows=kv),
            ]
        return found


def _with_rows(table: Tensor, n: int) -> Tensor:
    return torch.cat([table.new_zeros(n, table.shape[1]), table])
