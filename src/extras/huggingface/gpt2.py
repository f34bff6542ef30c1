"""GPT and HuggingFace's ``GPT2LMHeadModel``."""

# ruff: noqa: RUF012 -- the base class declares what is of the class

import re
from typing import ClassVar

from src.extras.huggingface.adapter import Exported, Settings
from src.extras.huggingface.gpt import GPTAdapter
from src.extras.huggingface.matches import Match, Tensors, head_by_head, layer, prelu
from src.models import GPTConfig

NO_BIASES = "\nThe network was trained without biases, which HuggingFace's has: here they are zeros.\n"


class GPT2Adapter(GPTAdapter):
    """GPT-2's linear layers are transposed (``Conv1D``), and its q, k and v stand one below the other.

    Its two further dropouts, of embeddings and sub-layers, are one here: that of the sub-layers is read.
    """

    model_type = "gpt2"
    classes = {
        "GPT2LMHeadModel": ("AutoModelForCausalLM", "text-generation"),
        "GPT2Model": ("AutoModel", "feature-extraction"),
    }
    keys = {
        "vocab_size": ("vocab_size", 50257),
        "max_seq_len": ("n_positions", 1024),
        "d_model": ("n_embd", 768),
        "n_heads": ("n_head", 12),
        "n_layers": ("n_layer", 12),
        "d_ff": ("n_inner", None),
        "dropout": ("resid_pdrop", 0.1),
        "attention_dropout": ("attn_pdrop", 0.1),
        "tie_embeddings": ("tie_word_embeddings", True),
    }
    aliases: ClassVar[dict[str, str]] = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }
    activation = ("activation_function", "gelu_new")
    fixed = {
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    }
    only = {**GPTAdapter.only, "positions": "learned"}
    handled = GPTAdapter.handled | {"bias"}
    end_id = 50256
    programs: ClassVar[tuple[str, ...]] = ("CTranslate2", "ONNX Runtime", "lm-eval")
    prefix = "transformer."
    buffers = re.compile(r"\.attn\.(masked_)?bias$")  # causal masks

    def suits(self, config: GPTConfig) -> bool:
        return super().suits(config) and config.norm_type == "layer" and config.positions == self.only["positions"]

    def write_config(self, config: GPTConfig) -> Settings:
        # llama.cpp asks for n_ctx, which GPT-2's own files have beside n_positions
        return {**super().write_config(config), "embd_pdrop": config.dropout, "n_ctx": config.max_seq_len}

    def write(self, config: GPTConfig, weights: Tensors, tokens: Settings, untrained: tuple[str, ...] = ()) -> Exported:
        """Convert a network here; one without biases is one of GPT-2's with biases of zero."""
        if not config.bias:
            names = [match.ours for match in self.matches(config) if match.ours.endswith(".bias")]
            layers = {name: weights[name.removesuffix("bias") + "weight"] for name in names}
            weights = {**weights, **{name: weight.new_zeros(len(weight)) for name, weight in layers.items()}}
        return super().write(config, weights, tokens, untrained)

    def matches(self, config: GPTConfig) -> list[Match]:
        qkv = head_by_head(config.d_model, config.n_heads, 3)
        found = [
            *self.embeddings(config, "transformer.wte.weight", "lm_head.weight"),
            Match("position_embedding.weight", ("transformer.wpe.weight",)),
            *layer("final_norm", "transformer.ln_f"),
        ]
        for i in range(config.n_layers):
            a, b = f"blocks.{i}.", f"transformer.h.{i}."
            found += [
                *layer(a + "attention_norm", b + "ln_1"),
                *layer(a + "attention.qkv", b + "attn.c_attn", transposed=True, rows=qkv),
                *layer(a + "attention.out", b + "attn.c_proj", transposed=True),
                *layer(a + "feed_forward_norm", b + "ln_2"),
                *layer(a + "feed_forward.up", b + "mlp.c_fc", transposed=True),
                *layer(a + "feed_forward.down", b + "mlp.c_proj", transposed=True),
                *prelu(config, a + "feed_forward.activation", b + "mlp.act"),
            ]
        return found

    def note(self, checkpoint: Settings) -> str:
        return "" if checkpoint["model_config"].get("bias", True) else NO_BIASES
