"""Attention by plain matrix products, where torch's own kernel is slower."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from src.nn.dropout import dropout_factors

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
        return matmul_attention(q, k, v, attn_mask, dropout_p, is_causal)
    return scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal)


def matmul_attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False
) -> Tensor:
    """Equation 1 of Vaswani et al. 2017. Arguments as :func:`attend`; products in the type of the inputs.

    A causal mask goes by blocks of queries, each with the keys up to its end: what is hidden behind is not computed,
    which is nearly half of a long sequence.
    """
    if attn_mask is not None and is_causal:  # as torch's kernel does
        raise ValueError("attention takes attn_mask or is_causal, not both")
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = _hiding(~attn_mask, q.dtype)
    return _Products.apply(q, k, v, attn_mask, dropout_p, is_causal)


def _hiding(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores: the least number, and not infinity, for rows that see no key."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill(hidden, torch.finfo(dtype).min)


def _blocks(queries: int, keys: int, is_causal: bool) -> list[tuple[slice, slice]]:
    """The queries of each block, and the keys that it needs."""
    if not is_causal:
        return [(slice(queries), slice(keys))]
    return [(slice(i, i + BLOCK), slice(min(i + BLOCK, keys))) for i in range(0, queries, BLOCK)]


class _Products(torch.autograd.Function):
    """With the backward pass written out: autograd would scale, add and join in passes of their own."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, dropout_p: float, is_causal: bool
    ) -> Tensor:
        batch, heads, queries, width = q.shape
        q, k, v = (x.contiguous().flatten(0, 1) for x in (q, k, v))
        y = q.new_empty(batch, queries, heads, v.shape[2]).transpose(1, 2)  # the heads of a query lie together
        saved: list[Tensor | None] = []
        for rows, seen in _blocks(queries, k.shape[1], is_causal):
            some, keys = q[:, rows], k[:, seen].transpose(1, 2)
            if is_causal:
                later = torch.ones(some.shape[1], keys.shape[2], dtype=torch.bool, device=q.device)
                hiding = _hiding(later.triu(1 + rows.start), q.dtype)
                scores = torch.baddbmm(hiding, some, keys, alpha=width**-0.5)
            else:
                scores = torch.baddbmm(q.new_zeros(()), some, keys, beta=0, alpha=width**-0.5)
            if attn_mask is not None:
                scores.unflatten(0, (batch, heads)).add_(attn_mask)
            weights = scores.softmax(-1)
            factors = dropout_factors(weights, dropout_p) if dropout_p else None
            weighted = (weights if factors is None else weights * factors) @ v[:, seen]
            y[:, :, rows] = weighted.unflatten(0, (batch, heads))
            saved += [weights, factors]
        ctx.save_for_backward(q, k, v, *saved)
        ctx.heads, ctx.is_causal = (batch, heads), is_causal
        ctx.mask_shape = None if attn_mask is None else attn_mask.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *saved = ctx.saved_tensors
        grad = grad.contiguous().flatten(0, 1)
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        blocks = _blocks(q.shape[1], k.shape[1], ctx.is_causal)
        for (rows, seen), weights, factors in zip(blocks, saved[::2], saved[1::2], strict=True):
            dy = grad[:, rows]
            d_weights = dy @ v[:, seen].transpose(1, 2)
            if factors is not None:
                d_weights *= factors
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
            dq[:, rows] = d_scores @ k[:, seen]
            dk[:, seen] += d_scores.transpose(1, 2) @ q[:, rows]
            dv[:, seen] += (weights if factors is None else weights * factors).transpose(1, 2) @ dy
        # with a mask there is one block
        d_mask = d_scores.unflatten(0, ctx.heads).sum_to_size(ctx.mask_shape) if ctx.needs_input_grad[3] else None
        scale = q.shape[2] ** -0.5
        gradients = dq.mul_(scale), dk.mul_(scale), dv
        return *(x.unflatten(0, ctx.heads) for x in gradients), d_mask, None, None
