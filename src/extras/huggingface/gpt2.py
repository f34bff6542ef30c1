"""GPT and HuggingFace's ``GPT2LMHeadModel``."""

# ruff: noqa: RUF012 -- the base class declares what is of the class

import re
from pathlib import Path
from typing import ClassVar

from tokenizers import Tokenizer

from src.extras.huggingface.adapter import Adapter, Exported, Match, Settings, Tensors, head_by_head, layer, prelu
from src.extras.huggingface.tokenizer_files import special_token, token_of, write_tokenizer
from src.models import GPTConfig
from src.tokenization import require_token

NO_BIASES = "\nThe network was trained without biases, which HuggingFace's has: here they are zeros.\n"


class GPT2Adapter(Adapter):
    """GPT-2's linear layers are transposed (``Conv1D``), and its q, k and v stand one below the other.

    Its two further dropouts, of embeddings and sub-layers, are one here: that of the sub-layers is read.
    """

    architecture = "gpt"
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
    activation: ClassVar[tuple[str, str]] = ("activation_function", "gelu_new")
    norm = "pre"
    fixed = {
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    }
    only: ClassVar[Settings] = {"positions": "learned", "window": None, "logit_softcap": None, "mup_width": None}
    handled = Adapter.handled | {"bias"}
    programs: ClassVar[tuple[str, ...]] = ("CTranslate2", "ONNX Runtime", "lm-eval")
    prefix = "transformer."
    buffers = re.compile(r"\.attn\.(masked_)?bias$")  # causal masks

    def suits(self, config: GPTConfig) -> bool:
        return super().suits(config) and config.positions == self.only["positions"]

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

    def embeddings(self, config: GPTConfig, words: str, head: str, *aliases: str) -> list[Match]:
        """Match the token embedding and the output layer, which may be one tensor."""
        if config.tie_embeddings:
            return [Match("token_embedding.weight", (words,), tied=("head.weight",), aliases=(head, *aliases))]
        return [Match("token_embedding.weight", (words,)), Match("head.weight", (head,), aliases=aliases)]

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

    def special_tokens(self, theirs: Settings, folder: Path, source: Tokenizer, target: Tokenizer) -> dict[str, str]:
        end = token_of(target, theirs, "eos_token_id", default=50256)
        unknown = special_token(folder, "unk_token")
        # GPT-2 names its end token for it
        if unknown in (None, end) or target.token_to_id(unknown) is None:
            return {"eos_token": end}
        return {"eos_token": end, "unk_token": unknown}

    def config_tokens(self, checkpoint: Settings) -> Settings:
        tokenizer = Tokenizer.from_str(checkpoint["tokenizer"])
        end = require_token(tokenizer, checkpoint["special_tokens"]["eos_token"], "eos_token")
        return {"bos_token_id": end, "eos_token_id": end}

    def generation(self, config: GPTConfig, tokens: Settings) -> Settings:
        return {"pad_token_id": tokens["eos_token_id"]}

    def note(self, checkpoint: Settings) -> str:
        return "" if checkpoint["model_config"].get("bias", True) else NO_BIASES

    def write_tokenizers(self, checkpoint: Settings, length: int, folder: Path) -> None:
        # each is named, as in GPT-2's own files: CTranslate2 asks for an unk_token
        end = checkpoint["special_tokens"]["eos_token"]
        special = {**dict.fromkeys(("unk_token", "bos_token", "pad_token"), end), **checkpoint["special_tokens"]}
        settings = {"padding_side": "left", "model_input_names": ["input_ids", "attention_mask"]}
        write_tokenizer(Tokenizer.from_str(checkpoint["tokenizer"]), special, length, settings, folder)
