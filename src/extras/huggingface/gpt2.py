"""GPT and HuggingFace's ``GPT2LMHeadModel``."""

import re
from typing import Any

from src.extras.huggingface.adapter import Adapter, Exported
from src.extras.huggingface.config_table import ConfigTable
from src.extras.huggingface.matching import Match, Tensors, head_by_head, layer
from src.models import GPTConfig


class GPT2Adapter(Adapter):
    """GPT-2's linear layers are transposed (``Conv1D``), and its q, k and v stand one below the other.

    Its two further dropouts, of embeddings and sub-layers, are one here: that of the sub-layers is read.
    """

    architecture = "gpt"
    table = ConfigTable(
        model_type="gpt2",
        keys={
            "vocab_size": ("vocab_size", 50257),
            "max_seq_len": ("n_positions", 1024),
            "d_model": ("n_embd", 768),
            "n_heads": ("n_head", 12),
            "n_layers": ("n_layer", 12),
            "d_ff": ("n_inner", None),
            "dropout": ("resid_pdrop", 0.1),
            "attention_dropout": ("attn_pdrop", 0.1),
            "tie_embeddings": ("tie_word_embeddings", True),
        },
        activation=("activation_function", "gelu_new"),
        norm="pre",
        fixed={
            "layer_norm_epsilon": 1e-5,
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
        only={"positions": "learned", "window": None},
    )
    reads = ("GPT2LMHeadModel", "GPT2Model")
    prefix = "transformer."
    derived = re.compile(r"\.attn\.(masked_)?bias$")  # causal masks

    def model_class(self, untrained: tuple[str, ...]) -> str:
        return "GPT2LMHeadModel"

    def write_config(self, config: GPTConfig) -> dict[str, Any]:
        return {**super().write_config(config), "embd_pdrop": config.dropout}

    def write(self, config: GPTConfig, weights: Tensors, untrained: tuple[str, ...] = ()) -> Exported:
        """As the base class; a network without biases is one of GPT-2's with biases of zero."""
        if not config.bias:
            names = [match.ours for match in self.matches(config) if match.ours.endswith(".bias")]
            layers = {name: weights[name.removesuffix("bias") + "weight"] for name in names}
            weights = {**weights, **{name: weight.new_zeros(len(weight)) for name, weight in layers.items()}}
        return super().write(config, weights, untrained)

    def tied(self, config: GPTConfig) -> dict[str, str]:
        return {"head.weight": "token_embedding.weight"} if config.tie_embeddings else {}

    def same(self, config: GPTConfig) -> dict[str, str]:
        return {"lm_head.weight": "transformer.wte.weight"} if config.tie_embeddings else {}

    def matches(self, config: GPTConfig) -> list[Match]:
        qkv = head_by_head(config.d_model, config.n_heads, 3)
        found = [
            Match("token_embedding.weight", ("transformer.wte.weight",)),
            Match("position_embedding.weight", ("transformer.wpe.weight",)),
            *layer("final_norm", "transformer.ln_f"),
        ]
        if not config.tie_embeddings:
            found.append(Match("head.weight", ("lm_head.weight",)))
        for i in range(config.n_layers):
            a, b = f"blocks.{i}.", f"transformer.h.{i}."
            found += [
                *layer(a + "attention_norm", b + "ln_1"),
                *layer(a + "attention.qkv", b + "attn.c_attn", transposed=True, rows=qkv),
                *layer(a + "attention.out", b + "attn.c_proj", transposed=True),
                *layer(a + "feed_forward_norm", b + "ln_2"),
                *layer(a + "feed_forward.up", b + "mlp.c_fc", transposed=True),
                *layer(a + "feed_forward.down", b + "mlp.c_proj", transposed=True),
            ]
            if config.activation == "prelu":
                found.append(Match(a + "feed_forward.activation.weight", (b + "mlp.act.weight",)))
        return found
