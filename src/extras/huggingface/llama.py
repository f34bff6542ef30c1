"""GPT with rotary positions, RMSNorm and a gate, and HuggingFace's ``LlamaForCausalLM`` and ``MistralForCausalLM``."""

# ruff: noqa: RUF012 -- the base class declares what is of the class

import re
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from src.errors import InputError
from src.extras.huggingface.adapter import UNGATED, Settings
from src.extras.huggingface.gpt import GPTAdapter
from src.extras.huggingface.json_files import list_setting, setting, shown
from src.extras.huggingface.matches import Match, Tensors, layer, prelu
from src.extras.huggingface.rope import check_rope, read_rope, write_rope
from src.extras.huggingface.windows import FULL, SLIDING, read_kinds
from src.models import GPTConfig


class LlamaAdapter(GPTAdapter):
    """Llama has q, k and v in three matrices, here they are one, group by group: see :mod:`src.nn.attention`.

    SmolLM's and many others' files are of this kind, too.
    """

    model_type = "llama"
    classes = {
        "LlamaForCausalLM": ("AutoModelForCausalLM", "text-generation"),
        "LlamaModel": ("AutoModel", "feature-extraction"),
    }
    keys = {
        "vocab_size": ("vocab_size", 32000),
        "max_seq_len": ("max_position_embeddings", 2048),
        "d_model": ("hidden_size", 4096),
        "n_heads": ("num_attention_heads", 32),
        "n_kv_heads": ("num_key_value_heads", None),
        "head_dim": ("head_dim", None),
        "n_layers": ("num_hidden_layers", 32),
        "d_ff": ("intermediate_size", 11008),
        "norm_eps": ("rms_norm_eps", 1e-6),
        "bias": ("attention_bias", False),
        "mlp_bias": ("mlp_bias", False),
        "attention_dropout": ("attention_dropout", 0.0),
        "tie_embeddings": ("tie_word_embeddings", False),
    }
    activation = ("hidden_act", "silu")
    fixed: ClassVar[Settings] = {}
    only = {**GPTAdapter.only, "norm_type": "rms", "positions": "rotary", "gated": True, "dilation": 1}
    handled = GPTAdapter.handled | {"rope_base", "rope_scaling", "rope_factor", "rope_original_len"}
    heads_divide_width: ClassVar[bool] = True  # whatever the width of a head: its class asks for it
    programs: ClassVar[tuple[str, ...]] = ("ONNX Runtime", "lm-eval")
    prefix = "model."
    buffers = re.compile(r"rotary_emb\.inv_freq$")

    # ---- the configuration

    def suits(self, config: GPTConfig) -> bool:
        return is_of_the_family(config) and not config.qk_norm and config.window is None

    def read_fields(self, theirs: Settings, tensors: Tensors) -> Settings:
        fields = super().read_fields(theirs, tensors)
        fields = {"bias": False, "mlp_bias": False, **fields, "gated": True, "norm_type": "rms", "dropout": 0.0}
        # what follows from the others is left to follow
        if fields["n_kv_heads"] == fields["n_heads"]:
            fields["n_kv_heads"] = None
        if fields["head_dim"] and fields["head_dim"] * fields["n_heads"] == fields["d_model"]:
            fields["head_dim"] = None
        if fields["mlp_bias"] == fields["bias"]:
            fields["mlp_bias"] = None
        return fields | read_rope(theirs, fields["max_seq_len"]) | self.read_windows(theirs, fields["n_layers"])

    def read_windows(self, theirs: Settings, n_layers: int) -> Settings:
        """Read which tokens each block sees: all, in a Llama."""
        kinds = read_kinds(theirs, [FULL] * n_layers)
        for key, is_there in (
            ("sliding_window", list_setting(theirs, "sliding_window", int)),
            ("layer_types", SLIDING in kinds),
        ):
            if is_there:
                raise InputError(f"config.json has {key} {shown(theirs[key])}: a {self.model_type} has no windows")
        return {}

    def check(self, config: GPTConfig) -> None:
        super().check(_resolved(config))
        check_rope(config, self.model_type)
        if self.heads_divide_width and config.d_model % config.n_heads:
            raise InputError(
                f"HuggingFace's {self.model_type} has only a d_model that n_heads divides: a network with "
                f"{config.d_model} and {config.n_heads} cannot be exported"
            )

    def write_config(self, config: GPTConfig) -> Settings:
        theirs = super().write_config(_resolved(config))
        theirs |= {"num_key_value_heads": config.n_kv_heads or config.n_heads, "head_dim": config.head_width}
        return {**theirs, **write_rope(config)}

    # ---- the tensors

    def matches(self, config: GPTConfig) -> list[Match]:
        n_kv_heads, width = config.n_kv_heads or config.n_heads, config.head_width
        sizes = (config.n_heads * width, n_kv_heads * width, n_kv_heads * width)
        rows = group_by_group(sizes, n_kv_heads)
        bias, mlp_bias = config.bias, config.has_mlp_bias
        found = self.embeddings(config, "model.embed_tokens.weight", "lm_head.weight")
        found += _weight("final_norm", "model.norm")
        for i in range(config.n_layers):
            a, b = f"blocks.{i}.", f"model.layers.{i}."
            qkv = tuple(f"{b}self_attn.{name}_proj" for name in "qkv")
            found += [
                *_weight(a + "attention_norm", b + "input_layernorm"),
                *layer(a + "attention.qkv", qkv, rows=rows, sizes=sizes)[: 1 + bias],
                *_linear(a + "attention.out", b + "self_attn.o_proj", bias),
                *_weight(a + "feed_forward_norm", b + "post_attention_layernorm"),
                *prelu(config, a + "feed_forward.activation", b + "mlp.act_fn"),
            ]
            for name in ("gate", "up", "down"):
                found += _linear(f"{a}feed_forward.{name}", f"{b}mlp.{name}_proj", mlp_bias)
            if config.qk_norm:
                for name in ("q_norm", "k_norm"):
                    found += _weight(f"{a}attention.{name}", f"{b}self_attn.{name}")
        return found


WITH_WINDOWS = {name: value for name, value in LlamaAdapter.only.items() if name != "window"}


class MistralAdapter(LlamaAdapter):
    """Mistral is a Llama without biases, whose tokens see ``sliding_window`` tokens, themselves among them."""

    model_type = "mistral"
    classes = {
        "MistralForCausalLM": ("AutoModelForCausalLM", "text-generation"),
        "MistralModel": ("AutoModel", "feature-extraction"),
    }
    keys = {
        **{name: key for name, key in LlamaAdapter.keys.items() if name not in ("bias", "mlp_bias")},
        "max_seq_len": ("max_position_embeddings", 4096 * 32),
        "n_kv_heads": ("num_key_value_heads", 8),
        "d_ff": ("intermediate_size", 14336),
    }
    only = {**WITH_WINDOWS, "bias": False, "mlp_bias": False}
    heads_divide_width = False
    programs = ("ONNX Runtime",)

    def suits(self, config: GPTConfig) -> bool:
        return is_of_the_family(config) and not config.qk_norm and config.window is not None

    def read_windows(self, theirs: Settings, n_layers: int) -> Settings:
        window = read_window(theirs)
        kind = SLIDING if window else FULL
        if set(read_kinds(theirs, [kind] * n_layers)) != {kind}:
            raise InputError(
                f"config.json has layer_types {shown(theirs['layer_types'])}: a mistral's are all of a kind"
            )
        return {} if window is None else {"window": window - 1}

    def check(self, config: GPTConfig) -> None:
        super().check(config)
        if isinstance(config.window, list):
            raise InputError(f"HuggingFace's mistral has one window: a network with {config.window} cannot be exported")

    def write_config(self, config: GPTConfig) -> Settings:
        window = config.window_of(0)
        return {**super().write_config(config), "sliding_window": None if window is None else window + 1}


def is_of_the_family(config: GPTConfig) -> bool:
    """Whether a network is of Llama's kind, by what tells it from GPT-2 and GPT-NeoX."""
    return config.norm == "pre" and config.positions == "rotary" and config.norm_type != "layer"


def read_window(theirs: Settings) -> int | None:
    """Read how many tokens a token sees; None, which is not the same as a key that is missing, for all."""
    window = setting(theirs, "sliding_window", int, None if "sliding_window" in theirs else 4096)
    if window is not None and window < 1:
        raise InputError(f"config.json has sliding_window {window}: it must be at least 1")
    return window


def group_by_group(sizes: tuple[int, ...], n_groups: int) -> Tensor:
    """Find which row of q, k and v, one below the other, each row here is: of each group its queries, key and value.

    Args:
        sizes: rows of q, of k and of v.
        n_groups: of heads: one a head of keys.
    """
    parts = torch.arange(sum(sizes)).split(sizes)
    return torch.cat([part.view(n_groups, -1) for part in parts], 1).flatten()


def _resolved(config: GPTConfig) -> GPTConfig:
    """Say outright what follows from other fields: gate and biases of the feed-forward network."""
    activation = UNGATED.get(config.activation, config.activation)
    return replace(config, activation=activation, gated=config.is_gated, mlp_bias=config.has_mlp_bias)


def _weight(ours: str, theirs: str) -> list[Match]:
    return _linear(ours, theirs, bias=False)


def _linear(ours: str, theirs: str, bias: bool) -> list[Match]:
    return layer(ours, theirs)[: 1 + bias]
