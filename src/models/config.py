"""Checks that every architecture's configuration shares, and what they say of attention."""

from collections.abc import Callable
from functools import partial
from typing import Any

from src.nn import ACTIVATIONS, KERNELS, AttentionSpan, SelfAttention, alibi_slopes


def check(config: Any) -> None:
    """Raise ``ValueError`` at the first field of a model's configuration that cannot work, naming it and its value.

    The fields are checked by their names, which mean the same in every architecture.
    """
    values = vars(config)
    for name, value in values.items():
        if name != "window" and isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise ValueError(f"{name} is {value}: it must be at least 1")
        if "dropout" in name and not 0 <= value < 1:
            raise ValueError(f"{name} is {value}: it must be at least 0 and less than 1")
    if values["d_model"] % values["n_heads"]:
        raise ValueError(f"d_model {config.d_model} is not divisible by n_heads {config.n_heads}")
    if values["activation"] not in ACTIVATIONS:
        raise ValueError(f"unknown activation {config.activation!r}: choose one of {', '.join(ACTIVATIONS)}")
    if values["norm"] not in ("pre", "post"):
        raise ValueError(f"norm is {config.norm!r}: choose 'pre' or 'post'")
    _check_window(config)
    _check_kernel(config)


def _check_window(config: Any) -> None:
    window, dilation = config.window, config.dilation
    if isinstance(window, list) and len(window) != getattr(config, "n_layers", None):
        raise ValueError(f"window is {window}: it must be one number, or one for each of the n_layers blocks")
    if window is not None and min(_listed(window), default=0) < 0:
        raise ValueError(f"window is {window}: it must be at least 0")
    if isinstance(dilation, list) and len(dilation) != config.n_heads:
        raise ValueError(f"dilation is {dilation}: it must be one number, or one for each of {config.n_heads} heads")
    if min(_listed(dilation)) < 1:
        raise ValueError(f"dilation is {dilation}: it must be at least 1")
    if window is None and max(_listed(dilation)) > 1:
        raise ValueError(f"dilation is {dilation}: it widens a window, and window is null")


def _check_kernel(config: Any) -> None:
    kernel, window, dilation = config.attention, config.window, config.dilation
    if kernel not in KERNELS:
        raise ValueError(f"attention is {kernel!r}: choose one of {', '.join(KERNELS)}")
    if kernel == "sliding_window" and window is None:
        raise ValueError("attention 'sliding_window' needs a window: set window to the tokens on each side")
    if kernel == "flash" and (window is not None or getattr(config, "positions", None) == "alibi"):
        raise ValueError("attention 'flash' takes no window and no alibi: choose 'sliding_window', 'flex' or 'dense'")
    if kernel == "flash_attn" and max(_listed(dilation)) > 1:
        raise ValueError(f"dilation is {dilation}: attention 'flash_attn' has none, choose 'sliding_window'")
    if kernel == "flex" and config.attention_dropout:
        raise ValueError(f"attention_dropout is {config.attention_dropout}: attention 'flex' has none, set it to 0")


def _listed(value: Any) -> list[int]:
    return value if isinstance(value, list) else [value]


def attention_span(config: Any, layer: int = 0) -> AttentionSpan:
    """How far the heads of a block look, as a configuration says."""
    window = config.window[layer] if isinstance(config.window, list) else config.window
    dilation = _listed(config.dilation) * (1 if isinstance(config.dilation, list) else config.n_heads)
    slopes = alibi_slopes(config.n_heads) if getattr(config, "positions", None) == "alibi" else ()
    return AttentionSpan(window, tuple(dilation) if max(dilation) > 1 else (), slopes)


def self_attention(
    config: Any, layer: int = 0, kind: Callable[..., SelfAttention] = SelfAttention
) -> Callable[..., SelfAttention]:
    """What makes the self-attention of a block."""
    return partial(kind, kernel=config.attention, span=attention_span(config, layer))
