"""Implementations of attention by name: one interface, and each of the others equals `dense`.

Each takes queries (B, H, T, D), keys and values (B, G, T, D) of the same T tokens, a :class:`Mask`, the layer's
`AttentionSpan` and the fraction of attention weights to drop, and returns (B, H, T, D). Each of the G heads of keys
serves H / G neighbouring heads of queries. In decoding it is called with one more argument, the positions of the keys,
which then are those of the cache and of the T tokens.
"""

from collections.abc import Callable
from functools import cache, partial, wraps
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from src.errors import InputError
from src.nn.cache import KeyPositions
from src.nn.cpu import attend, capped_attention
from src.nn.masks import AttentionSpan, Mask
from src.nn.packed import by_document
from src.nn.sliding_window import sliding_window

Kernel = Callable[..., Tensor]


def dense(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Mask,
    span: AttentionSpan,
    dropout: float,
    keys: KeyPositions | None = None,
    attend: Callable[..., Tensor] = attend,
) -> Tensor:
    """All pairs, by whichever kernel of torch takes them, or by matrix products where those are faster.

    Also from T queries to other S keys, whose positions ``keys`` gives.
    """
    if mask.packing is not None:
        return by_document(partial(dense, attend=attend), q, k, v, mask, span, dropout)
    visible = mask.matrix(span, q.dtype, q.device, keys)
    is_causal = mask.causal and visible is None and not mask.past
    if span.softcap is not None:
        return capped_attention(q, k, v, visible, dropout, is_causal, span.softcap)
    return attend(q, k, v, attn_mask=visible, dropout_p=dropout, is_causal=is_causal)


def decoded_by_dense(kernel: Kernel) -> Kernel:
    """Let :func:`dense` decode, where queries are few: for a kernel that equals it and does not take a cache's keys."""

    @wraps(kernel)
    def either(q: Tensor, k: Tensor, v: Tensor, mask: Mask, *arguments: Any) -> Tensor:
        if mask.bias is not None:
            raise InputError(f"attention {kernel.__name__!r} takes no bias of the scores: choose 'dense'")
        return (dense if isinstance(arguments[-1], KeyPositions) else kernel)(q, k, v, mask, *arguments)

    return either


@decoded_by_dense
def flash(q: Tensor, k: Tensor, v: Tensor, mask: Mask, span: AttentionSpan, dropout: float) -> Tensor:
    """All pairs, by torch's flash kernel or not at all (Dao et al. 2022).

    It is refused where torch has none: on CUDA with a mask tensor, on a CPU with dropout.
    """
    try:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            grouped = partial(scaled_dot_product_attention, enable_gqa=k.shape[1] != q.shape[1])
            return dense(q, k, v, mask, span, dropout, attend=grouped)
    except RuntimeError as error:
        if "No available kernel" not in str(error):
            raise
        said = [f"{str(q.dtype).removeprefix('torch.')} on {q.device.type}", f"attention_dropout {dropout}"]
        said += ["padding" if mask.attention_mask is not None else "no padding"]
        said += ["documents apart"] if mask.documents is not None else []
        raise InputError(
            f"attention 'flash': torch has no flash kernel for {', '.join(said)}: choose 'dense', which takes the "
            "fastest that there is"
        ) from error


@decoded_by_dense
def flash_attn(q: Tensor, k: Tensor, v: Tensor, mask: Mask, span: AttentionSpan, dropout: float) -> Tensor:
    """All pairs or a window, by the package flash-attn (Dao 2023), in half precision on CUDA."""
    if q.device.type != "cuda":
        raise InputError(f"attention 'flash_attn' runs on CUDA, not on {q.device.type}: choose 'flash' or 'dense'")
    if find_spec("flash_attn") is None:
        raise InputError("attention 'flash_attn' needs the package: pip install flash-attn --no-build-isolation")
    if mask.attention_mask is not None or mask.documents is not None:
        raise InputError("attention 'flash_attn' takes no padding and no documents here: choose 'flex' or 'dense'")
    if q.dtype not in (torch.float16, torch.bfloat16):
        raise InputError("attention 'flash_attn' has half precision only: set trainer.precision to bf16-mixed")
    from flash_attn import flash_attn_func

    window = -1 if span.window is None else span.window
    slopes = torch.tensor(span.alibi_slopes, device=q.device) if span.alibi_slopes else None
    y = flash_attn_func(
        *(x.transpose(1, 2) for x in (q, k, v)),
        dropout_p=dropout,
        causal=mask.causal,
        window_size=(window, 0 if mask.causal else window),
        alibi_slopes=slopes,
    )
    return y.transpose(1, 2)


@decoded_by_dense
def flex(q: Tensor, k: Tensor, v: Tensor, mask: Mask, span: AttentionSpan, dropout: float) -> Tensor:
    """Any mask, by a kernel that torch compiles for it and that skips blocks without a visible pair.

    Torch has a backward pass for it on CUDA alone.
    """
    if q.device.type != "cuda" and q.requires_grad:
        raise InputError(f"attention 'flex' trains on CUDA, not on {q.device.type}: choose 'sliding_window' or 'dense'")
    block_mask = mask.cached(_block_mask, span, tuple(q.shape[:3]), q.device)
    slopes, cap = torch.tensor(span.alibi_slopes, dtype=q.dtype, device=q.device), span.softcap

    def score(value: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        if cap is not None:
            value = cap * torch.tanh(value / cap)
        return value - slopes[head] * (query - key).abs() if span.alibi_slopes else value

    changed = score if span.alibi_slopes or cap is not None else None
    grouped = k.shape[1] != q.shape[1]
    return _flex_attention(q.device.type)(q, k, v, score_mod=changed, block_mask=block_mask, enable_gqa=grouped)


def _block_mask(mask: Mask, span: AttentionSpan, shape: tuple[int, int, int], device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    batch, n_heads, length = shape
    dilation = torch.tensor(span.dilation or (1,) * n_heads, device=device)

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return mask.visible(query, key, span.window, dilation[head], row)

    rows = None if mask.attention_mask is None and mask.documents is None else batch
    heads = n_heads if span.dilation else None
    return create_block_mask(visible, rows, heads, length, length, device=device)


@cache
def _flex_attention(device: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False) if device == "cuda" else flex_attention


# name in configurations -> implementation
KERNELS: dict[str, Kernel] = {
    "dense": dense,
    "flash": flash,
    "flash_attn": flash_attn,
    "sliding_window": decoded_by_dense(sliding_window),
    "flex": flex,
}
