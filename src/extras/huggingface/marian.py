"""The Transformer and HuggingFace's ``MarianMTModel``."""

import re
from typing import Any

import torch
from torch import Tensor

from src.errors import InputError
from src.extras.huggingface.adapter import Adapter, Exported, Imported
from src.extras.huggingface.config_table import ConfigTable
from src.extras.huggingface.matching import Match, Tensors, head_by_head, layer
from src.extras.huggingface.settings import setting
from src.models import TransformerConfig
from src.nn import SinusoidalPositions

FINAL_BIAS = "final_logits_bias"
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
    table = ConfigTable(
        model_type="marian",
        keys={
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
        },
        activation=("activation_function", "gelu"),
        norm="post",
        fixed={"scale_embedding": True, "normalize_before": False, "normalize_embedding": False},
        only={"window": None},
    )
    reads = ("MarianMTModel",)
    prefix = "model."
    derived = re.compile(rf"embed_positions\.weight$|^{FINAL_BIAS}$")

    def model_class(self, untrained: tuple[str, ...]) -> str:
        return "MarianMTModel"

    def read_fields(self, theirs: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
        for one, other, default in PAIRS:
            first, second = (setting(theirs, key, type(default), default) for key in (one, other))
            if first != second:
                raise InputError(f"config.json has {one} {first!r} and {other} {second!r}: here the two are the same")
        # HuggingFace's class leaves the embeddings unscaled where nothing is said
        scaled = setting(theirs, "scale_embedding", bool, False)
        fields = super().read_fields({**theirs, "scale_embedding": scaled}, tensors)
        return {**fields, "vocab_size": fields["vocab_size"] or fields["source_vocab_size"]}

    def write_config(self, config: TransformerConfig) -> dict[str, Any]:
        theirs = super().write_config(config)
        return {
            **theirs,
            "vocab_size": config.source_vocab_size or config.vocab_size,
            "decoder_attention_heads": theirs["encoder_attention_heads"],
            "decoder_ffn_dim": theirs["encoder_ffn_dim"],
            "share_encoder_decoder_embeddings": config.tie_embeddings,
            "is_encoder_decoder": True,
        }

    def read(self, theirs: dict[str, Any], tensors: Tensors) -> Imported:
        """As the base class.

        Raises:
            InputError: also for a bias of the output layer, and for positions that are not sinusoidal.
        """
        if FINAL_BIAS in tensors and tensors[FINAL_BIAS].any():
            raise InputError(f"{FINAL_BIAS} is not zero: the output layer here has no bias")
        config = self.read_config(theirs, tensors)
        table = SinusoidalPositions(config.max_seq_len, config.d_model).table[:, stream(config.d_model).argsort()]
        for name in tensors:
            if name.endswith("embed_positions.weight") and not _close(tensors[name], table):
                raise InputError(f"{name} is no table of sines and cosines: here positions are fixed")
        return super().read(theirs, tensors)

    def write(self, config: TransformerConfig, weights: Tensors, untrained: tuple[str, ...] = ()) -> Exported:
        exported = super().write(config, weights, untrained)
        bias = weights["head.weight"].new_zeros(1, config.vocab_size)
        return Exported(exported.config, {FINAL_BIAS: bias, **exported.tensors})

    def tied(self, config: TransformerConfig) -> dict[str, str]:
        names = ("source_embedding.weight", "head.weight") if config.tie_embeddings else ()
        return dict.fromkeys(names, "target_embedding.weight")

    def same(self, config: TransformerConfig) -> dict[str, str]:
        names = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
        return dict.fromkeys(names if config.tie_embeddings else (), "model.shared.weight")

    def matches(self, config: TransformerConfig) -> list[Match]:
        width = stream(config.d_model)
        embeddings = {"target_embedding": "model.shared"}
        if not config.tie_embeddings:
            embeddings = {
                "source_embedding": "model.encoder.embed_tokens",
                "target_embedding": "model.decoder.embed_tokens",
                "head": "lm_head",
            }
        found = [Match(f"{a}.weight", (f"{b}.weight",), columns=width) for a, b in embeddings.items()]
        for side, n_layers in (("encoder", config.n_encoder_layers), ("decoder", config.n_decoder_layers)):
            for i in range(n_layers):
                found += _block(config, f"{side}.{i}.", f"model.{side}.layers.{i}.", side == "decoder", width)
        return found


def stream(d_model: int) -> Tensor:
    """Which place of Marian's residual stream each place here is."""
    places = torch.arange(d_model)
    places[0::2], places[1::2] = torch.arange(d_model).tensor_split([(d_model + 1) // 2])
    return places


def _block(config: TransformerConfig, a: str, b: str, cross_attention: bool, width: Tensor) -> list[Match]:
    """The tensors of a block: ``a`` and ``b`` are what its names begin with, here and there."""

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
    found += [
        *layer(a + "feed_forward.up", b + "fc1", columns=width),
        *layer(a + "feed_forward.down", b + "fc2", rows=width),
        *layer(a + "feed_forward_norm", b + "final_layer_norm", rows=width),
    ]
    if config.activation == "prelu":
        found.append(Match(a + "feed_forward.activation.weight", (b + "activation_fn.weight",)))
    return found


def _close(tensor: Tensor, table: Tensor) -> bool:
    return tensor.shape == table.shape and torch.allclose(tensor.float(), table, atol=1e-5)
