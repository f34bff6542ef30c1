"""Sampling from a causal language model."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from src.models import GPT


def left_pad(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Prompts of unequal length as one batch, padded on the left so that all continue at the same position.

    Returns:
        ``input_ids`` and ``attention_mask``, both (batch, longest prompt).
    """
    longest = max(map(len, prompts))
    input_ids = torch.full((len(prompts), longest), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        attention_mask[row, longest - len(prompt) :] = 1
    return input_ids, attention_mask


def filter_logits(logits: Tensor, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Set the logits of tokens that are not to be drawn to -inf: (batch, vocabulary) to the same.

    Args:
        top_k: keep the k likeliest tokens (Fan et al. 2018).
        top_p: keep the likeliest tokens whose probabilities first sum to p (nucleus sampling, Holtzman et al. 2019).
    """
    if top_k is not None and top_k < logits.shape[-1]:
        kth = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(descending=True)
        probabilities = ordered.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities  # the sum without the token itself: the likeliest is kept
        drop = (before >= top_p).scatter(1, order, before >= top_p)
        logits = logits.masked_fill(drop, -torch.inf)
    return logits


def pick(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator | None
) -> Tensor:
    """The next token of each row: (batch, vocabulary) to (batch,). Temperature 0 takes the likeliest."""
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.float()
    # the likeliest at 0, so that no logit becomes infinite at the smallest temperature
    logits = (logits - logits.amax(-1, keepdim=True)) / max(temperature, torch.finfo(torch.float32).tiny)
    filtered = filter_logits(logits, top_k, top_p)
    return torch.multinomial(filtered.softmax(-1), 1, generator=generator)[:, 0]


@torch.inference_mode()
def stream(
    model: GPT,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_id: int | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yield the next token of each row, (batch,), until every row has ended or ``max_new_tokens`` are drawn.

    When the context is full, the later half of it is read again and decoding continues from there. A network with a
    window and without a table of positions has no longest context, and its cache holds a window whatever the length.

    Args:
        model: in evaluation mode.
        input_ids: (batch, prompt), padded on the left: see :func:`left_pad`.
        attention_mask: (batch, prompt), 1 at real tokens; None without padding.
        max_new_tokens: how many tokens to draw at most.
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: see :func:`filter_logits`.
        top_p: see :func:`filter_logits`.
        eos_id: ends a row; behind it the row has ``eos_id`` alone.
        use_cache: keep keys and values instead of computing them again at each step; the tokens are the same.
        generator: source of the randomness.
    """
    context = model.config.context
    if context is not None and input_ids.shape[1] > context:
        raise ValueError(f"a prompt of {input_ids.shape[1]} tokens is longer than the context of {context}")
    window, mask = input_ids, attention_mask
    # the context may be far longer than what is asked for
    longest = min(input_ids.shape[1] + max_new_tokens, context or sys.maxsize)
    cache = model.new_cache(longest) if use_cache else None
    unseen = window  # what is not in the cache yet
    ended = torch.zeros(len(window), dtype=torch.bool, device=window.device)
    for _ in range(max_new_tokens):
        if context is not None and window.shape[1] > context:
            window = window[:, -max(context // 2, 1) :]
            mask = None if mask is None else mask[:, -max(context // 2, 1) :]
            cache, unseen = model.new_cache(longest) if use_cache else None, window
        hidden = model.hidden(unseen if use_cache else window, mask, cache)[:, -1]
        token = pick(model.head(hidden), temperature, top_k, top_p, generator)
        if eos_id is not None:
            token = token.masked_fill(ended, eos_id)
            ended = ended | (token == eos_id)
        yield token
        if ended.all():
            return
        unseen = token[:, None]
        window = torch.cat([window, unseen], 1)
        mask = None if mask is None else torch.cat([mask, mask.new_ones(len(mask), 1)], 1)


def generate(
    model: GPT, prompts: Sequence[Sequence[int]], *, eos_id: int | None = None, **settings: Any
) -> list[list[int]]:
    """Continue prompts as one batch: token ids without the prompt and without ``eos_id``.

    Settings are those of :func:`stream`.
    """
    device = model.token_embedding.weight.device
    input_ids, attention_mask = (t.to(device) for t in left_pad(prompts, pad_id=0))
    mask = None if bool(attention_mask.all()) else attention_mask
    tokens = list(stream(model, input_ids, mask, eos_id=eos_id, **settings))
    rows = torch.stack(tokens, 1).tolist() if tokens else [[] for _ in prompts]
    return [row[: row.index(eos_id)] if eos_id in row else row for row in rows]
