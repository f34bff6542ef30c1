"""Faster ways on a CPU than torch's own: dropout, and attention in bfloat16.

`python -m tests.nn.measure_cpu` measures what each saves of a training step: below 3% it is not worth its lines.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention

LEVELS = 1 << 16  # of 16 random bits: the fraction that is dropped is rounded to one of them
BLOCK = 128  # queries of a causal block: with smaller ones fewer pairs are computed, by smaller products
MOST_PAIRS = 1 << 25  # of queries and keys in all heads, whose weights are kept for the backward pass: 64 MiB


def _by_torch(x: Tensor, p: float) -> bool:
    """Whether dropout is torch's: of a subclass, such as a DTensor, and in what is compiled, which is fast anyway."""
    return x.device.type != "cpu" or type(x) is not Tensor or torch.compiler.is_compiling() or p == 1


def _dropout_scale(x: Tensor, p: float) -> Tensor:
    """What dropout multiplies each element by: 0, or 1 / (1 - p). 64 random bits decide on four elements."""
    if _by_torch(x, p):
        return functional.dropout(torch.ones_like(x), p)
    dropped = min(max(1, round(p * LEVELS)), LEVELS - 1)
    bits = torch.randint(-(1 << 63), (1 << 63) - 1, (-(-x.numel() // 4),), dtype=torch.int64)
    drawn = bits.view(torch.int16)[: x.numel()].view(x.shape)
    return (drawn >= dropped - LEVELS // 2).to(x.dtype).mul_(LEVELS / (LEVELS - dropped))


def dropout(x: Tensor, p: float) -> Tensor:
    """Drop out elements (Srivastava et al. 2014); on a CPU in a quarter of the time of ``functional.dropout``.

    There torch draws a random number for each element, one after the other. The bits here are of torch's generator as
    well: the same seed gives the same run.
    """
    if p == 0:
        return x
    return functional.dropout(x, p) if _by_torch(x, p) else x * _dropout_scale(x, p)


class Dropout(nn.Dropout):
    """``torch.nn.Dropout`` by :func:`dropout`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return dropout(input, self.p) if self.training else input


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
) -> Tensor:
    """``scaled_dot_product_attention``, with its arguments, by the faster way to train.

    On a CPU the backward pass of torch's bfloat16 kernel takes several times as long as the matrix products that it
    consists of, which run at full speed. Where there are too many pairs to keep, and for all else (float32, a GPU,
    evaluation), it is torch's kernel.
    """
    trained = torch.is_grad_enabled() and q.requires_grad
    slow = trained and q.device.type == "cpu" and q.dtype == torch.bfloat16
    if slow and math.prod(q.shape[:-1]) * k.shape[-2] <= MOST_PAIRS:
        k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
        return matmul_attention(q, k, v, attn_mask, dropout_p, is_causal)
    grouped = k.shape[1] != q.shape[1]
    return scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, is_causal, enable_gqa=grouped)


def capped_attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, dropout_p: float, is_causal: bool, softcap: float
) -> Tensor:
    """``softmax(c · tanh(q k^T / (c · sqrt(D)))) v``, which torch's kernels do not have: see :func:`attend`."""
    k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
    scores = softcap * torch.tanh(q @ k.transpose(2, 3) / (softcap * q.shape[3] ** 0.5))
    if is_causal:
        attn_mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=q.device).tril()
    if attn_mask is not None:
        scores = scores + (_bias(~attn_mask, scores.dtype) if attn_mask.dtype == torch.bool else attn_mask)
    return dropout(scores.softmax(-1).to(v.dtype), dropout_p) @ v


def repeat_heads(x: Tensor, n_heads: int) -> Tensor:
    """Keys or values of grouped queries, (B, G, S, D), once for each head of queries: (B, H, S, D)."""
    return x if x.shape[1] == n_heads else x.repeat_interleave(n_heads // x.shape[1], 1)


def matmul_attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False
) -> Tensor:
    """Equation 1 of Vaswani et al. 2017 by plain matrix products. Arguments as :func:`attend`.

    A causal mask goes by blocks of queries, each with the keys up to its end: the hidden keys behind it are not
    computed, which is nearly half of a long sequence.
    """
    if attn_mask is not None and is_causal:  # as torch's kernel does
        raise ValueError("attention takes attn_mask or is_causal, not both")
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = _bias(~attn_mask, q.dtype)
    return _MatmulAttention.apply(q, k, v, attn_mask, dropout_p, is_causal)


def _bias(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the scores of hidden keys: the least number, and not -inf, for queries that see no key."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill(hidden, torch.finfo(dtype).min)


def _blocks(queries: int, keys: int, is_causal: bool) -> list[tuple[slice, slice]]:
    """The queries of each block, and the keys that it needs."""
    if not is_causal:
        return [(slice(queries), slice(keys))]
    return [(slice(i, i + BLOCK), slice(min(i + BLOCK, keys))) for i in range(0, queries, BLOCK)]


class _MatmulAttention(torch.autograd.Function):
    """With the backward pass written out: autograd would scale, add and join in passes of their own."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, dropout_p: float, is_causal: bool
    ) -> Tensor:
        batch, heads, queries, head_dim = q.shape
        q, k, v = (x.contiguous().flatten(0, 1) for x in (q, k, v))
        y = q.new_empty(batch, queries, heads, v.shape[2]).transpose(1, 2)  # the heads of a query lie together
        saved: list[Tensor | None] = []
        for rows, columns in _blocks(queries, k.shape[1], is_causal):
            q_block, k_block = q[:, rows], k[:, columns].transpose(1, 2)
            bias = q.new_zeros(())
            if is_causal:
                pairs = torch.ones(q_block.shape[1], k_block.shape[2], dtype=torch.bool, device=q.device)
                bias = _bias(pairs.triu(1 + rows.start), q.dtype)
            scores = torch.baddbmm(bias, q_block, k_block, beta=int(is_causal), alpha=head_dim**-0.5)
            if attn_mask is not None:
                scores.unflatten(0, (batch, heads)).add_(attn_mask)
            weights = scores.softmax(-1)
            scale = _dropout_scale(weights, dropout_p) if dropout_p else None
            dropped = (weights if scale is None else weights * scale) @ v[:, columns]
            y[:, :, rows] = dropped.unflatten(0, (batch, heads))
            saved += [weights, scale]
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
        for (rows, columns), weights, scale in zip(blocks, saved[::2], saved[1::2], strict=True):
            dy = grad[:, rows]
            d_weights = dy @ v[:, columns].transpose(1, 2)
            if scale is not None:
                d_weights *= scale
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
            dq[:, rows] = d_scores @ k[:, columns]
            dk[:, columns] += d_scores.transpose(1, 2) @ q[:, rows]
            dv[:, columns] += (weights if scale is None else weights * scale).transpose(1, 2) @ dy
        # with a mask there is one block
        d_mask = d_scores.unflatten(0, ctx.heads).sum_to_size(ctx.mask_shape) if ctx.needs_input_grad[3] else None
        gradients = dq.mul_(q.shape[2] ** -0.5), dk.mul_(q.shape[2] ** -0.5), dv
        return *(x.unflatten(0, ctx.heads) for x in gradients), d_mask, None, None
