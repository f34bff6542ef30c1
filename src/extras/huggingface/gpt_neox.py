"""GPT with rotary positions and HuggingFace's ``GPTNeoXForCausalLM``."""

# ruff: noqa: RUF012 -- the base class declares what is of the class

import re

from src.errors import InputError
from src.extras.huggingface.adapter import Settings
from src.extras.huggingface.gpt2 import GPT2Adapter
from src.extras.huggingface.json_files import CONFIG, setting
from src.extras.huggingface.matches import Match, Tensors, layer, prelu
from src.extras.huggingface.rope import rope_object, rope_type
from src.models import GPTConfig

ROTATED, BASE = 1.0, 10000.0  # the fraction of a head that is rotated, and the base of its angles


class GPTNeoXAdapter(GPT2Adapter):
    """GPT-NeoX rotates the same pairs, and its q, k and v stand head by head as here.

    Those published, such as Pythia, add attention and feed-forward network to one residual, and rotate a quarter of a
    head: what no network here does.
    """

    model_type = "gpt_neox"
    classes = {
        "GPTNeoXForCausalLM": ("AutoModelForCausalLM", "text-generation"),
        "GPTNeoXModel": ("AutoModel", "feature-extraction"),
    }
    keys = {
        "vocab_size": ("vocab_size", 50432),
        "max_seq_len": ("max_position_embeddings", 2048),
        "d_model": ("hidden_size", 6144),
        "n_heads": ("num_attention_heads", 64),
        "n_layers": ("num_hidden_layers", 44),
        "d_ff": ("intermediate_size", 24576),
        "dropout": ("hidden_dropout", 0.0),
        "attention_dropout": ("attention_dropout", 0.0),
        "tie_embeddings": ("tie_word_embeddings", False),
    }
    aliases = {}
    activation = ("hidden_act", "gelu")
    fixed = {
        "layer_norm_eps": 1e-5,
        "use_parallel_residual": False,
        "attention_bias": True,
        "rotary_pct": ROTATED,
        "rotary_emb_base": BASE,
    }
    only = {**GPT2Adapter.only, "positions": "rotary"}
    end_id = 2
    programs = ("ONNX Runtime", "lm-eval")
    prefix = "gpt_neox."
    buffers = re.compile(r"\.attention\.(masked_)?bias$|rotary_emb\.inv_freq$")

    def read_fields(self, theirs: Settings, tensors: Tensors) -> Settings:
        """Read the rotation in its older keys, or, where these are not, in the newer object."""
        key, rope = rope_object(theirs)
        if (kind := rope_type(rope, f"{key} of {CONFIG}")) != "default":
            raise InputError(f"config.json has rope_type {kind!r}: the network here can only have 'default'")
        found = {
            # what HuggingFace's class takes where nothing is said
            "use_parallel_residual": setting(theirs, "use_parallel_residual", bool, True),
            "rotary_pct": setting(rope, "partial_rotary_factor", float, setting(theirs, "rotary_pct", float, 0.25)),
            "rotary_emb_base": setting(rope, "rope_theta", float, setting(theirs, "rotary_emb_base", float, BASE)),
        }
        return {**super().read_fields({**theirs, **found}, tensors), "positions": "rotary"}

    def write_config(self, config: GPTConfig) -> Settings:
        theirs = super().write_config(config)
        return {key: value for key, value in theirs.items() if key not in ("n_ctx", "embd_pdrop")}

    def matches(self, config: GPTConfig) -> list[Match]:
        found = self.embeddings(config, "gpt_neox.embed_in.weight", "embed_out.weight", "lm_head.weight")
        found += layer("final_norm", "gpt_neox.final_layer_norm")
        for i in range(config.n_layers):
            a, b = f"blocks.{i}.", f"gpt_neox.layers.{i}."
            found += [
                *layer(a + "attention_norm", b + "input_layernorm"),
                *layer(a + "attention.qkv", b + "attention.query_key_value"),
                *layer(a + "attention.out", b + "attention.dense"),
                *layer(a + "feed_forward_norm", b + "post_attention_layernorm"),
                *layer(a + "feed_forward.up", b + "mlp.dense_h_to_4h"),
                *layer(a + "feed_forward.down", b + "mlp.dense_4h_to_h"),
                *prelu(config, a + "feed_forward.activation", b + "mlp.act"),
            ]
        return found
