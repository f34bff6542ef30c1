"""The Transformer and HuggingFace's: Marian's of norm ``post``, Pegasus' of norm ``pre``."""

# ruff: noqa: RUF012 -- the base class declares what is of the class

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from tokenizers import Tokenizer
from torch import Tensor

from src.errors import InputError
from src.extras.huggingface.adapter import Adapter, Exported, Imported, Settings
from src.extras.huggingface.hub import TARGET_TOKENIZER
from src.extras.huggingface.json_files import setting
from src.extras.huggingface.matches import Match, Tensors, head_by_head, layer, prelu
from src.extras.huggingface.tokenizer_files import token_of, with_end, write_tokenizer
from src.models import TransformerConfig
from src.nn import NormPlacement, SinusoidalPositions
from src.tokenization import require_token

FINAL_BIAS = "final_logits_bias"
TOKENIZER = """
The tokenizer puts the end token behind a source, and is not HuggingFace's `MarianTokenizer`.{target}"""
PENALTY = """
`generate` divides a hypothesis' log-probability by `length ** length_penalty`, where the network's own search divides
by `((5 + length) / 6) ** length_penalty`; with a `length_penalty` of 0 the two are the same.
"""
OWN_TARGET = f"""
The target has a tokenizer of its own, which decodes what the model generates:
`AutoTokenizer.from_pretrained(FOLDER, subfolder="{TARGET_TOKENIZER}")`."""
# keys of one value here, and their default
PAIRS = (
    ("encoder_attention_heads", "decoder_attention_heads", 16),
    ("encoder_ffn_dim", "decoder_ffn_dim", 4096),
    ("share_encoder_decoder_embeddings", "tie_word_embeddings", True),
)


class MarianAdapter(Adapter):
    """Marian's sines stand before its cosines, here they alternate as in the paper: the residual stream is permuted.

    HuggingFace's q, k and v are three matrices, here they are one (two of them in cross-attention), head by head.
    """

    architecture = "transformer"
    model_type = "marian"
    classes = {"MarianMTModel": ("AutoModelForSeq2SeqLM", "translation")}
    keys = {
        "source_vocab_size": ("vocab_size", 58101),
        "vocab_size": ("decoder_vocab_size", None),
        "max_seq_len": ("max_position_embeddings", 1024),
        "d_model": ("d_model", 1024),
        "n_heads": ("encoder_attention_heads", 16),
        "n_encoder_layers": ("encoder_layers", 12),
        "n_decoder_layers": ("decoder_layers", 12),
        "d_ff": ("encoder_ffn_dim", 4096),
        "dropout": ("dropout", 0.1),
        "attention_dropout": ("attention_dropout", 0.0),
        "tie_embeddings": ("tie_word_embeddings", True),
    }
    aliases: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
    }
    unwritten: ClassVar[Settings] = {"is_causal": True}
    activation = ("activation_function", "gelu")
    only: ClassVar[Settings] = {
        **Adapter.only,
        "scale_embeddings": True,
        "embedding_norm": False,
        "shared_positions": True,
    }
    pairs: ClassVar[tuple[tuple[str, str, Any], ...]] = PAIRS
    fine_tuning_lr = 2e-5  # of HuggingFace's course on Marian (chapter 7, "Translation")
    norm: ClassVar[NormPlacement] = "post"
    fixed = {"scale_embedding": True, "normalize_before": False, "normalize_embedding": False}
    prefix = "model."
    buffers = re.compile(rf"embed_positions\.weight$|^{FINAL_BIAS}$")

    def suits(self, config: TransformerConfig) -> bool:
        """BART norms its embeddings."""
        return super().suits(config) and not config.embedding_norm

    def read_fields(self, theirs: Settings, tensors: Tensors) -> Settings:
        for one, other, default in self.pairs:
            first, second = (setting(theirs, key, type(default), default) for key in (one, other))
            if first != second:
                raise InputError(f"config.json has {one} {first!r} and {other} {second!r}: here the two are the same")
        # HuggingFace's class leaves the embeddings unscaled where nothing is said
        scaled = setting(theirs, "scale_embedding", bool, False)
        fields = super().read_fields({**theirs, "scale_embedding": scaled}, tensors)
        return {**fields, "vocab_size": fields["vocab_size"] or fields["source_vocab_size"]}

    def write_config(self, config: TransformerConfig) -> Settings:
        theirs = super().write_config(config)
        return {
            **theirs,
            "vocab_size": config.source_vocab_size or config.vocab_size,
            "decoder_attention_heads": theirs["encoder_attention_heads"],
            "decoder_ffn_dim": theirs["encoder_ffn_dim"],
            "share_encoder_decoder_embeddings": config.tie_embeddings,
            "is_encoder_decoder": True,
        }

    def convert(self, theirs: Settings, tensors: Tensors) -> Imported:
        """Refuse a bias of the output layer, and positions that are not sinusoidal."""
        self.check_final_bias(tensors)
        config = self.read_config(theirs, tensors)
        table = _positions(config)
        for name in tensors:
            if name.endswith("embed_positions.weight") and not _close(tensors[name], table):
                raise InputError(f"{name} is no table of sines and cosines: here positions are fixed")
        return super().convert(theirs, tensors)

    def check_final_bias(self, tensors: Tensors) -> None:
        """Refuse a bias of the output layer."""
        if FINAL_BIAS in tensors and tensors[FINAL_BIAS].any():
            raise InputError(f"{FINAL_BIAS} is not zero: the output layer here has no bias")

    def write(
        self, config: TransformerConfig, weights: Tensors, tokens: Settings, untrained: tuple[str, ...] = ()
    ) -> Exported:
        exported = super().write(config, weights, tokens, untrained)
        bias = weights["head.weight"].new_zeros(1, config.vocab_size)
        return replace(exported, tensors={FINAL_BIAS: bias, **exported.tensors})

    def stream(self, config: TransformerConfig) -> Tensor | None:
        """Find which channel of HuggingFace's residual stream each channel here is; None where all are the same."""
        return stream(config.d_model)

    def matches(self, config: TransformerConfig) -> list[Match]:
        width = self.stream(config)
        names = {
            "source_embedding.weight": "model.encoder.embed_tokens.weight",
            "target_embedding.weight": "model.decoder.embed_tokens.weight",
            "head.weight": "lm_head.weight",
        }
        if config.tie_embeddings:
            one, *tied = ("target_embedding.weight", "source_embedding.weight", "head.weight")
            shared, aliases = ("model.shared.weight",), tuple(names.values())
            found = [Match(one, shared, columns=width, tied=tuple(tied), aliases=aliases)]
        else:
            found = [Match(ours, (theirs,), columns=width) for ours, theirs in names.items()]
        for side, n_layers in (("encoder", config.n_encoder_layers), ("decoder", config.n_decoder_layers)):
            for i in range(n_layers):
                found += _block(config, f"{side}.{i}.", f"model.{side}.layers.{i}.", side == "decoder", width)
            if self.norm == "pre":
                found += layer(f"{side}_norm", f"model.{side}.layer_norm", rows=width)
        return found

    def special_tokens(self, theirs: Settings, folder: Path, source: Tokenizer, target: Tokenizer) -> dict[str, str]:
        names = {"eos_token": "eos_token_id", "decoder_start_token": "decoder_start_token_id"}
        special = {name: token_of(target, theirs, key) for name, key in names.items()}
        require_token(source, special["eos_token"], "eos_token")
        return special

    def config_tokens(self, checkpoint: Settings) -> Settings:
        tokenizer, special = Tokenizer.from_str(checkpoint["tokenizer"]), checkpoint["special_tokens"]
        end = require_token(tokenizer, special["eos_token"], "eos_token")
        start = require_token(tokenizer, special["decoder_start_token"], "decoder_start_token")
        # HuggingFace pads both sides with one id, which must be one of both
        source_size = checkpoint["model_config"]["source_vocab_size"] or end + 1
        pad = end if end < source_size else 0
        tokens = {"eos_token_id": end, "decoder_start_token_id": start, "pad_token_id": pad}
        return {**tokens, "bos_token_id": None, "forced_eos_token_id": None}

    def generation(self, config: TransformerConfig, tokens: Settings) -> Settings:
        return {"num_beams": 4, "length_penalty": 0.6, "early_stopping": "never", "max_length": config.max_seq_len}

    def note(self, checkpoint: Settings) -> str:
        own = checkpoint["source_tokenizer"] != checkpoint["tokenizer"]
        return TOKENIZER.format(target=OWN_TARGET if own else "") + PENALTY

    def write_tokenizers(self, checkpoint: Settings, length: int, folder: Path) -> None:
        """Write the source's, and in a folder below it the target's, if that is another one."""
        settings = {"model_input_names": ["input_ids", "attention_mask"]}
        folders = {"source_tokenizer": folder}
        if checkpoint["source_tokenizer"] != checkpoint["tokenizer"]:
            folders["tokenizer"] = folder / TARGET_TOKENIZER
        special = self.named_tokens(checkpoint["special_tokens"])
        for name, below in folders.items():
            below.mkdir(exist_ok=True)
            tokenizer = self.framed(Tokenizer.from_str(checkpoint[name]), checkpoint["special_tokens"])
            write_tokenizer(tokenizer, special, length, settings, below)

    def framed(self, tokenizer: Tokenizer, special: dict[str, str]) -> Tokenizer:
        """Copy a tokenizer, to put around a source what this network expects there."""
        return with_end(tokenizer, special["eos_token"])

    def named_tokens(self, special: dict[str, str]) -> dict[str, str]:
        """Name the tokenizer's special tokens as HuggingFace does."""
        return {"eos_token": special["eos_token"], "pad_token": special["eos_token"]}


class PegasusAdapter(MarianAdapter):
    """HuggingFace's Pegasus is a Marian of norm ``pre``, but for its one embedding of source and target."""

    model_type = "pegasus"
    classes = {"PegasusForConditionalGeneration": ("AutoModelForSeq2SeqLM", "translation")}
    keys = {**MarianAdapter.keys, "source_vocab_size": ("vocab_size", 50265), "vocab_size": ("vocab_size", 50265)}
    norm = "pre"
    fixed = {
        "scale_embedding": True,
        "normalize_before": True,
        "normalize_embedding": False,
        "tie_word_embeddings": True,
    }

    def check(self, config: TransformerConfig) -> None:
        super().check(config)
        if not config.tie_embeddings:
            raise InputError(
                "HuggingFace's pegasus, the one of norm 'pre', has one embedding: a network with tie_embeddings False "
                "cannot be exported; tie_embeddings and data.joint_vocabulary make it one"
            )

    def config_tokens(self, checkpoint: Settings) -> Settings:
        tokens = super().config_tokens(checkpoint)
        return {**tokens, "pad_token_id": tokens["decoder_start_token_id"]}

    def write(
        self, config: TransformerConfig, weights: Tensors, tokens: Settings, untrained: tuple[str, ...] = ()
    ) -> Exported:
        exported = super().write(config, weights, tokens, untrained)
        table = _positions(config).to(weights["head.weight"].dtype)  # which are in its files, and not in Marian's
        tables = {f"model.{side}.embed_positions.weight": table.clone() for side in ("encoder", "decoder")}
        return replace(exported, tensors={**exported.tensors, **tables})

    def named_tokens(self, special: dict[str, str]) -> dict[str, str]:
        """As Pegasus does, which starts from its padding token; CTranslate2 asks for each of them."""
        end, start = special["eos_token"], special["decoder_start_token"]
        return {"eos_token": end, "pad_token": start, "unk_token": end}


def stream(d_model: int) -> Tensor:
    """Find which channel of Marian's residual stream each channel here is."""
    channels = torch.arange(d_model)
    channels[0::2], channels[1::2] = torch.arange(d_model).tensor_split([(d_model + 1) // 2])
    return channels


def _positions(config: TransformerConfig) -> Tensor:
    """HuggingFace's table of sines, and then cosines: (max_seq_len, d_model)."""
    return SinusoidalPositions(config.max_seq_len, config.d_model).table[:, stream(config.d_model).argsort()]


def _block(config: TransformerConfig, a: str, b: str, cross_attention: bool, width: Tensor | None) -> list[Match]:
    """List the tensors of a block: ``a`` and ``b`` are what its names begin with, here and there."""

    def attention(ours: str, theirs: str, projections: tuple[str, ...]) -> list[Match]:
        found = []
        for names in projections:
            rows = head_by_head(config.d_model, config.n_heads, len(names))
            projected = tuple(f"{theirs}.{name}_proj" for name in names)
            found += layer(f"{ours}.{names}", projected, rows=rows, columns=width)
        return [
            *found,
            *layer(f"{ours}.out", f"{theirs}.out_proj", rows=width),
            *layer(f"{ours}_norm", f"{theirs}_layer_norm", rows=width),
        ]

    found = attention(a + "attention", b + "self_attn", ("qkv",))
    if cross_attention:
        found += attention(a + "cross_attention", b + "encoder_attn", ("q", "kv"))
    return [
        *found,
        *layer(a + "feed_forward.up", b + "fc1", columns=width),
        *layer(a + "feed_forward.down", b + "fc2", rows=width),
        *layer(a + "feed_forward_norm", b + "final_layer_norm", rows=width),
        *prelu(config, a + "feed_forward.activation", b + "activation_fn"),
    ]


def _close(tensor: Tensor, table: Tensor) -> bool:
    return tensor.shape == table.shape and torch.allclose(tensor.float(), table, atol=1e-5)
