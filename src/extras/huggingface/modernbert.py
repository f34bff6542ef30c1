"""BERT with today's choices (see `docs/modern.md`) and HuggingFace's ModernBERT (Warner et al. 2024)."""

# ruff: noqa: RUF012 -- the base class declares what is of the class

import re
from dataclasses import replace
from typing import ClassVar

from src.errors import InputError
from src.extras.huggingface.adapter import ACTIVATIONS, UNGATED, Adapter, Settings
from src.extras.huggingface.bert import BERTAdapter, BiEncoderAdapter, MaskedWordsAdapter
from src.extras.huggingface.json_files import setting, shown
from src.extras.huggingface.matches import Match, Tensors, head_by_head, layer, prelu
from src.extras.huggingface.rope import rope_type
from src.extras.huggingface.windows import FULL, SLIDING, pattern_of, read_kinds, windows_of
from src.models import BERTConfig

BIASES = ("norm_bias", "attention_bias", "mlp_bias", "classifier_bias")
HEAD_ACTIVATION = ("classifier_activation", "gelu")
ROPE_BASES = {FULL: ("global_rope_theta", 160_000.0), SLIDING: ("local_rope_theta", 10_000.0)}


class ModernBERT(BERTAdapter):
    """ModernBERT's gate stands above what it multiplies, in one matrix. Of its windows, both sides are counted.

    Its dropout of embeddings is read as that here; within the feed-forward network it drops at another place.
    """

    model_type = "modernbert"
    programs: ClassVar[tuple[str, ...]] = ("sentence-transformers",)
    keys = {
        "vocab_size": ("vocab_size", 50368),
        "max_seq_len": ("max_position_embeddings", 8192),
        "d_model": ("hidden_size", 768),
        "n_heads": ("num_attention_heads", 12),
        "n_layers": ("num_hidden_layers", 22),
        "d_ff": ("intermediate_size", 1152),
        "dropout": ("embedding_dropout", 0.0),
        "attention_dropout": ("attention_dropout", 0.0),
        "init_std": ("initializer_range", 0.02),
        "norm_eps": ("norm_eps", 1e-5),
    }
    activation = ("hidden_activation", "gelu")
    norm = "pre"
    fixed: ClassVar[Settings] = {"decoder_bias": True, "tie_word_embeddings": True}
    only: ClassVar[Settings] = {"positions": "rotary", "gated": True, "first_norm": False, "n_segments": 0}
    handled = Adapter.handled | {"bias", "window_pattern", "rope_base", "rope_local_base"}
    token_ids = {
        "pad_token_id": "pad_token",
        "bos_token_id": "cls_token",
        "eos_token_id": "sep_token",
        "cls_token_id": "cls_token",
        "sep_token_id": "sep_token",
    }
    prefix = "model."
    buffers = re.compile(r"rotary_emb\.")

    # ---- the configuration

    def read_fields(self, theirs: Settings, tensors: Tensors) -> Settings:
        fields = super().read_fields(theirs, tensors)
        key, default = HEAD_ACTIVATION
        if (activation := setting(theirs, key, str, default)) not in ACTIVATIONS[fields["activation"]]:
            raise InputError(f"config.json has {key} {activation!r}: here it is that of {self.activation[0]}")
        biases = {key: setting(theirs, key, bool, False) for key in BIASES}
        if len(set(biases.values())) > 1:
            said = ", ".join(f"{key} {value}" for key, value in biases.items())
            raise InputError(f"config.json has {said}: here all have a bias or none has one")
        choices = {"bias": biases[BIASES[0]], "gated": True, "first_norm": False, "n_segments": 0}
        return {**fields, **choices, **_read_windows(theirs, fields["n_layers"]), **_read_rope(theirs)}

    def suits(self, config: BERTConfig) -> bool:
        return config.norm == self.norm and config.positions == "rotary"

    def check(self, config: BERTConfig) -> None:
        super().check(_ungated(config))
        if isinstance(config.window, list) and len(set(config.window)) > 1:
            raise InputError(
                f"HuggingFace's modernbert has one window for all blocks: a network with {config.window} cannot be "
                "exported"
            )

    def write_config(self, config: BERTConfig) -> Settings:
        """With the older keys, too, where the blocks that see all are those that these can say."""
        theirs = super().write_config(_ungated(config))
        kinds, windows = windows_of(config, config.n_layers)
        bases = {FULL: config.rope_base, SLIDING: config.rope_local_base or config.rope_base}
        every = next((n for n in range(1, config.n_layers + 1) if _kinds(n, config.n_layers) == kinds), None)
        return {
            **theirs,
            HEAD_ACTIVATION[0]: theirs[self.activation[0]],
            **dict.fromkeys(BIASES, config.bias),
            "mlp_dropout": config.dropout,
            "layer_types": kinds,
            "local_attention": 2 * next(iter(windows), 64),
            "rope_parameters": {kind: {"rope_type": "default", "rope_theta": base} for kind, base in bases.items()},
            **{ROPE_BASES[kind][0]: base for kind, base in bases.items()},
            **({"global_attn_every_n_layers": every} if every else {}),
        }

    # ---- the tensors

    def encoder_matches(
        self, config: BERTConfig, tied: tuple[str, ...] = (), aliases: tuple[str, ...] = ()
    ) -> list[Match]:
        biased = slice(1 + config.bias)
        qkv = head_by_head(config.d_model, config.n_heads, 3)
        found = [
            Match(
                "encoder.token_embedding.weight",
                ("model.embeddings.tok_embeddings.weight",),
                tied=tied,
                aliases=aliases,
            ),
            *layer("encoder.embedding_norm", "model.embeddings.norm")[biased],
            *layer("encoder.final_norm", "model.final_norm")[biased],
        ]
        for i in range(config.n_layers):
            a, b = f"encoder.blocks.{i}.", f"model.layers.{i}."
            if i:
                found += layer(a + "attention_norm", b + "attn_norm")[biased]
            found += [
                *layer(a + "attention.qkv", b + "attn.Wqkv", rows=qkv)[biased],
                *layer(a + "attention.out", b + "attn.Wo")[biased],
                *layer(a + "feed_forward_norm", b + "mlp_norm")[biased],
                *layer(a + "feed_forward.down", b + "mlp.Wo")[biased],
                *prelu(config, a + "feed_forward.activation", b + "mlp.act"),
            ]
            for part, name in enumerate(("gate", "up")):
                both = layer(f"{a}feed_forward.{name}", b + "mlp.Wi")[biased]
                found += [replace(match, part=(part, 2)) for match in both]
        return found


class ModernBERTAdapter(ModernBERT, MaskedWordsAdapter):
    """With the head for masked words, or without; the network has no pooler."""

    classes = {
        "ModernBertForMaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
        "ModernBertModel": ("AutoModel", "feature-extraction"),
    }
    head, head_activation = ("head.dense", "head.norm"), "head.act"
    decoder, decoder_bias = "decoder", "decoder.bias"
    parts = {
        "encoder.pooler": "model.pooler.",
        "masked_words": ("head.", "decoder."),
        "next_sentence": "next_sentence.",
    }


class ModernBiEncoderAdapter(ModernBERT, BiEncoderAdapter):
    """A retriever's encoder."""

    programs = ("sentence-transformers",)
    classes = {"ModernBertModel": ("AutoModel", "feature-extraction")}
    parts = {"encoder.pooler": "model.pooler."}


def _ungated(config: BERTConfig) -> BERTConfig:
    """Name the activation of the gate, and say outright that there is one."""
    return replace(config, activation=UNGATED.get(config.activation, config.activation), gated=config.is_gated)


def _kinds(every: int, n_layers: int) -> list[str]:
    """List the blocks' kinds where each so many-th sees all tokens, from the first on."""
    return [SLIDING if i % every else FULL for i in range(n_layers)]


def _read_windows(theirs: Settings, n_layers: int) -> Settings:
    """Read which blocks see all tokens and how far the others see: in ``layer_types``, or in an older key."""
    every = setting(theirs, "global_attn_every_n_layers", int, 3)
    if every < 1:
        raise InputError(f"config.json has global_attn_every_n_layers {every}: it must be at least 1")
    kinds = read_kinds(theirs, _kinds(every, n_layers))
    if SLIDING not in kinds:
        return {}
    one_side = setting(theirs, "sliding_window", int, None)
    both_sides = setting(theirs, "local_attention", int, 128 if one_side is None else 2 * one_side)
    if one_side not in (None, both_sides // 2):
        raise InputError(
            f"config.json has sliding_window {one_side} and local_attention {both_sides}, which is twice as long"
        )
    if both_sides < 0:
        raise InputError(f"config.json has local_attention {both_sides}: it must be at least 0")
    found = {"window": both_sides // 2, "attention": "sliding_window"}
    if FULL in kinds:
        found["window_pattern"] = pattern_of(kinds)
    return found


def _read_rope(theirs: Settings) -> Settings:
    """Read the bases of the rotary angles: in ``rope_parameters``, or in the older keys."""
    if theirs.get("rope_scaling") is not None:
        raise InputError(f"config.json has rope_scaling {shown(theirs['rope_scaling'])}: here angles are not scaled")
    kinds, bases = setting(theirs, "rope_parameters", dict, {}), {}
    if unknown := next(iter(kinds.keys() - ROPE_BASES.keys()), None):
        raise InputError(
            f"rope_parameters of config.json has {unknown!r}: it has an object for {FULL} and one for {SLIDING}"
        )
    for kind, (key, default) in ROPE_BASES.items():
        found, where = setting(kinds, kind, dict, {}, "rope_parameters of config.json"), f"{kind} of rope_parameters"
        if (name := rope_type(found, where)) != "default":
            raise InputError(f"config.json has {kind} with rope_type {name!r}: here it can only be 'default'")
        base = setting(theirs, key, float, default)
        bases[kind] = float(setting(found, "rope_theta", float, base, where))
    local = None if bases[SLIDING] == bases[FULL] else bases[SLIDING]
    return {"positions": "rotary", "rope_base": bases[FULL], "rope_local_base": local}
