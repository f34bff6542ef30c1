"""The Transformer with normed embeddings and learned positions, and HuggingFace's BART (Lewis et al. 2019)."""

# ruff: noqa: RUF012 -- the base class declares what is of the class

import re
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from tokenizers import Tokenizer

from src.extras.huggingface.adapter import Adapter, Exported, Imported, Settings
from src.extras.huggingface.json_files import GENERATION, read_json, setting
from src.extras.huggingface.marian import FINAL_BIAS, PAIRS, PENALTY, MarianAdapter
from src.extras.huggingface.matches import Match, Tensors, layer
from src.extras.huggingface.tokenizer_files import special_token, token_of, with_end
from src.models import TransformerConfig
from src.tokenization import require_token

POSITIONS = "embed_positions.weight"
UNUSED = 2  # rows before the first position
NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")


class BARTAdapter(MarianAdapter):
    """BART has Marian's blocks; its embeddings are normed, and positions of its own are learned on each side.

    The first two rows of its positions, which no token has, are left out on the way in, and are zeros on the way out.
    """

    model_type = "bart"
    classes = {
        "BartForConditionalGeneration": ("AutoModelForSeq2SeqLM", "translation"),
        "BartModel": ("AutoModel", "feature-extraction"),  # the same tensors: its embeddings are the output layer
    }
    keys = {
        "source_vocab_size": ("vocab_size", 50265),
        "vocab_size": ("vocab_size", 50265),
        "max_seq_len": ("max_position_embeddings", 1024),
        "d_model": ("d_model", 1024),
        "n_heads": ("encoder_attention_heads", 16),
        "n_encoder_layers": ("encoder_layers", 12),
        "n_decoder_layers": ("decoder_layers", 12),
        "d_ff": ("encoder_ffn_dim", 4096),
        "dropout": ("dropout", 0.1),
        "attention_dropout": ("attention_dropout", 0.0),
        "scale_embeddings": ("scale_embedding", False),
    }
    fixed = {
        "tie_word_embeddings": True,
        "normalize_before": False,
        "normalize_embedding": True,
        "add_final_layer_norm": False,
        "add_bias_logits": False,
        "static_position_embeddings": False,
    }
    only: ClassVar[Settings] = {
        **Adapter.only,
        "positions": "learned",
        "tie_embeddings": True,
        "embedding_norm": True,
        "shared_positions": False,
    }
    pairs = PAIRS[:2]
    programs = ("CTranslate2",)
    fine_tuning_lr = 3e-5  # of its authors' code for summaries
    buffers = re.compile(rf"^{FINAL_BIAS}$|coder\.version$")

    def suits(self, config: TransformerConfig) -> bool:
        return config.norm == self.norm and config.embedding_norm

    # ---- network

    def read_fields(self, theirs: Settings, tensors: Tensors) -> Settings:
        choices = {"tie_embeddings": True, "embedding_norm": True, "positions": "learned", "shared_positions": False}
        return {**super().read_fields(theirs, tensors), **choices}

    def convert(self, theirs: Settings, tensors: Tensors) -> Imported:
        self.check_final_bias(tensors)
        cut = {name: t[UNUSED:] if name.endswith(POSITIONS) and t.dim() else t for name, t in tensors.items()}
        return Adapter.convert(self, theirs, cut)

    def write(
        self, config: TransformerConfig, weights: Tensors, tokens: Settings, untrained: tuple[str, ...] = ()
    ) -> Exported:
        exported = super().write(config, weights, tokens, untrained)
        tensors = {
            name: torch.cat([t.new_zeros(UNUSED, t.shape[1]), t]) if name.endswith(POSITIONS) else t
            for name, t in exported.tensors.items()
        }
        return replace(exported, tensors=tensors)

    def stream(self, config: TransformerConfig) -> None:
        return None

    def matches(self, config: TransformerConfig) -> list[Match]:
        found = super().matches(config)
        for side, positions, norm in (
            ("encoder", "positions", "source_norm"),
            ("decoder", "target_positions", "target_norm"),
        ):
            found.append(Match(f"{positions}.weight", (f"model.{side}.{POSITIONS}",)))
            found += layer(norm, f"model.{side}.layernorm_embedding")
        return found

    # ---- tokens

    def special_tokens(self, theirs: Settings, folder: Path, source: Tokenizer, target: Tokenizer) -> dict[str, str]:
        """Find what begins a text, as its tokenizer writes it, and what ``generate`` writes first."""
        found = super().special_tokens(theirs, folder, source, target)
        end, unknown = found["eos_token"], special_token(folder, "unk_token")
        if theirs.get("pad_token_id") is not None and (pad := token_of(target, theirs, "pad_token_id")) != end:
            found["pad_token"] = pad
        if unknown not in (None, end) and target.token_to_id(unknown) is not None:
            found["unk_token"] = unknown
        if len(around := source.encode("").ids) > 1:
            found["bos_token"] = str(source.id_to_token(around[0]))
        key = "forced_bos_token_id"
        forced = setting(read_json(folder / GENERATION), key, int, setting(theirs, key, int, None), GENERATION)
        if forced is not None:
            found["forced_bos_token"] = token_of(target, {key: forced}, key)
        return found

    def config_tokens(self, checkpoint: Settings) -> Settings:
        tokenizer, special = Tokenizer.from_str(checkpoint["tokenizer"]), checkpoint["special_tokens"]
        names = {"bos_token_id": "bos_token", "forced_bos_token_id": "forced_bos_token", "pad_token_id": "pad_token"}
        ids = {key: require_token(tokenizer, special[name], name) for key, name in names.items() if name in special}
        return {**super().config_tokens(checkpoint), **ids}

    def framed(self, tokenizer: Tokenizer, special: dict[str, str]) -> Tokenizer:
        if "bos_token" in special and tokenizer.post_processor is not None:
            return tokenizer  # which puts them there itself
        return with_end(tokenizer, special["eos_token"], special.get("bos_token"))

    def named_tokens(self, special: dict[str, str]) -> dict[str, str]:
        """Name all that CTranslate2 asks for: by the end token, where there is none of its own."""
        return {name: special.get(name, special["eos_token"]) for name in NAMED}

    def note(self, checkpoint: Settings) -> str:
        return PENALTY
