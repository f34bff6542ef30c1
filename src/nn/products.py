"""Attention by plain matrix products, where torch's own kernel is slower."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from src.nn.dropout import dropout

BLOCK = 128  # queries: fewer leave out more pairs, by smaller products
MOST_PAIRS = 1 << 25  # of queries and keys in all heads, whose weights are kept for the backward pass: 64 MiB


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
) -> Tensor:
    """``scaled_dot_product_attention``, with its arguments, by the faster way to train.

    On a processor the backward pass of torch's bfloat16 kernel takes several times as long as the matrix products that
    it consists of, which run at full speed. Where there are too many pairs to keep, and for all else (float32, a GPU,
    evaluation), torch's kernel it is.
    """
    trained = torch.is_grad_enabled() and q.requires_grad
    pairs = q.shape[:-1].numel() * k.shape[-2]
    if trained and q.device.type == "cpu" and q.dtype == torch.bfloat16 and pairs <= MOST_PAIRS:
        return products(q, k, v, attn_mask, dropout_p, is_causal)
    return scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal)


def products(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False
) -> Tensor:
    """Equation 1 of Vaswani et al. 2017. Arguments as :func:`attend`; products in the type of the inputs.

    A causal mask goes by blocks of queries, each with the keys up to its end: what is hidden behind is not computed,
    which is nearly half of a long sequence.
    """
    if not is_causal:
        return _weighted(q, k, v, attn_mask, dropout_p)
    outputs = []
    for start in range(0, q.shape[-2], BLOCK):
        some, end = q[..., start : start + BLOCK, :], start + BLOCK
        keys, values = k[..., :end, :], v[..., :end, :]
        seen = torch.ones(some.shape[-2], keys.shape[-2], dtype=torch.bool, device=q.device).tril(start)
        outputs.append(_weighted(some, keys, values, seen, dropout_p))
    return torch.cat(outputs, dim=-2)


def _weighted(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, dropout_p: float) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        # added, since to fill it in costs the backward pass as much again; finite, for rows without any key
        hidden = torch.finfo(q.dtype).min
        attn_mask = torch.zeros(attn_mask.shape, dtype=q.dtype, device=q.device).masked_fill(~attn_mask, hidden)
    if attn_mask is not None:
        scores += attn_mask
    return dropout(scores.softmax(-1), dropout_p) @ v
