"""Attention within documents that lie end to end in a row, each by itself: no pair of two documents is computed.

Shape letters: B batch, H heads, T tokens, D width of a head, N documents of a row at most.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from src.nn.masks import AttentionSpan, Mask


def by_document(
    kernel: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, mask: Mask, span: AttentionSpan, dropout: float
) -> Tensor:
    """Run a kernel on each document of ``mask.packing``: see :mod:`src.nn.kernels` for the other arguments.

    On a CPU documents of equal length are one batch. On CUDA all of them are one call of torch's flash kernel for
    variable lengths where :func:`takes_varlen` says so, and else a batch that is padded for the kernel alone: how long
    they are is known on the device only, and nothing waits for it.
    """
    if takes_varlen(q, span, dropout):
        return varlen(q, k, v, mask, span)
    return (_grouped if q.device.type == "cpu" else padded)(kernel, q, k, v, mask, span, dropout)


def takes_varlen(q: Tensor, span: AttentionSpan, dropout: float) -> bool:
    """Whether torch's flash kernel for variable lengths can take these queries (Dao 2023)."""
    plain = not (span.dilation or span.alibi_slopes or span.softcap or dropout)
    half = q.dtype in (torch.float16, torch.bfloat16)
    return plain and half and q.shape[3] <= 256 and q.device.type == "cuda" and _is_ampere(q.device)


@cache
def _is_ampere(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (8, 0)


def varlen(q: Tensor, k: Tensor, v: Tensor, mask: Mask, span: AttentionSpan) -> Tensor:
    """Attend within each document, and its window if the layer has one, by one call for all."""
    assert mask.packing is not None
    ends, longest = mask.cached(_offsets), mask.packing.longest
    window = -1 if span.window is None else span.window
    y = varlen_attn(
        _end_to_end(q),
        _end_to_end(k),
        _end_to_end(v),
        ends,
        ends,
        longest,
        longest,
        window_size=(window, 0 if mask.causal else window),
        enable_gqa=k.shape[1] != q.shape[1],
    )
    assert isinstance(y, Tensor)
    return _in_rows(y, q)


def _grouped(
    kernel: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, mask: Mask, span: AttentionSpan, dropout: float
) -> Tensor:
    lengths = mask.cached(_lengths)
    # not by slices: the gradient of each would be as long as the row
    parts = [_end_to_end(x).split(lengths) for x in (q, k, v)]
    found: list[Any] = [None] * len(lengths)
    for length in dict.fromkeys(lengths):
        numbers = [i for i, other in enumerate(lengths) if other == length]
        alone = [torch.stack([part[i] for i in numbers]).transpose(1, 2) for part in parts]
        y = kernel(*alone, mask.cached(_of_one, length), span, dropout)
        for i, of_document in zip(numbers, y.transpose(1, 2).unbind(), strict=True):
            found[i] = of_document
    return _in_rows(torch.cat(found), q)


def padded(
    kernel: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, mask: Mask, span: AttentionSpan, dropout: float
) -> Tensor:
    """Attend to the documents as rows (B·N, H, longest, D), and leave out the padding again."""
    assert mask.packing is not None
    starts, longest = mask.packing.starts, mask.packing.longest
    batch, most = starts.shape
    if q.device.type == "meta":  # where work is counted: as if all were of one length
        longest = -(-mask.length // most)
    row = torch.arange(batch, device=q.device)[:, None]
    offset = torch.arange(longest, device=q.device)
    lengths = mask.packing.lengths(mask.length)
    # what stands in an unused place sees one token, which is not read: a softmax over nothing would be NaN
    attention_mask = (offset < lengths.clamp(min=1)[..., None]).flatten(0, 1)
    taken = row[..., None] * mask.length + (starts[..., None] + offset).clamp(max=mask.length - 1)
    alone = (_end_to_end(x)[taken.flatten(0, 1)].transpose(1, 2) for x in (q, k, v))
    y = kernel(*alone, Mask(longest, mask.causal, attention_mask=attention_mask, bias=mask.bias), span, dropout)
    documents = mask.packing.documents(mask.length)
    offset = torch.arange(mask.length, device=q.device) - starts.gather(1, documents)
    back = (row * most + documents) * longest + offset
    return _in_rows(_end_to_end(y)[back.flatten()], q)


def _end_to_end(x: Tensor) -> Tensor:
    """(B, H, T, D) to (B·T, H, D)."""
    return x.transpose(1, 2).flatten(0, 1)


def _in_rows(y: Tensor, like: Tensor) -> Tensor:
    """(B·T, H, D) to (B, H, T, D)."""
    return y.unflatten(0, (like.shape[0], like.shape[2])).transpose(1, 2)


def _of_one(mask: Mask, length: int) -> Mask:
    return Mask(length, mask.causal, bias=mask.bias)


def _lengths(mask: Mask) -> list[int]:
    """The tokens of each document, of all rows one after the other."""
    assert mask.packing is not None
    return [length for length in mask.packing.lengths(mask.length).flatten().tolist() if length]


def _offsets(mask: Mask) -> Tensor:
    """(B·N + 1,), where each document begins among the tokens of all rows, and the end; of unused places the next."""
    assert mask.packing is not None
    starts = mask.packing.starts
    rows = torch.arange(len(starts), device=starts.device)[:, None] * mask.length
    end = torch.full((1,), len(starts) * mask.length, device=starts.device)
    return torch.cat([(starts + rows).flatten(), end]).int()
