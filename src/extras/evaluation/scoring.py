"""Log-likelihoods of tokens by a GPT, each given as much of what stands before it as the context holds."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from src.data.progress import with_progress
from src.models import GPT


class Window(NamedTuple):
    """Tokens that are predicted together, and those before them that the network reads, at least one."""

    context: Sequence[int]
    targets: Sequence[int]


def context_length(model: GPT) -> int:
    """Give the most tokens that a network reads at once: where any number goes, as many as it was trained on."""
    return model.config.context or model.config.max_seq_len


def sliding_windows(ids: Sequence[int], first: int, length: int, stride: int) -> Iterator[Window]:
    """Cut a text so that each token is predicted once, from a window that moves on by ``stride`` tokens.

    The first window predicts all of its tokens, each later one its last ``stride``, with ``length - stride`` tokens or
    more before each. With a stride of ``length`` these are the windows of lm-eval.

    Args:
        ids: all predicted.
        first: stands before the first of them.
        length: tokens that the network reads.
        stride: from 1 to ``length``.
    """
    row = [first, *ids]  # row[i] stands before ids[i]
    start, end = 0, min(length, len(ids))
    while start < end:
        yield Window(row[max(0, end - length) : start + 1], ids[start:end])
        start, end = end, min(end + stride, len(ids))


@torch.inference_mode()
def log_likelihoods(model: GPT, windows: Sequence[Window], batch_size: int) -> list[tuple[float, bool]]:
    """Sum the log-probabilities of each window's targets, in nats, and say whether all are the likeliest tokens.

    Windows of like length go together, the longest first. Padding is behind the text, where no token attends to it.
    """
    device = model.token_embedding.weight.device
    order = sorted(range(len(windows)), key=lambda i: -sum(map(len, windows[i])))
    found = [(0.0, True)] * len(windows)
    for start in with_progress(range(0, len(order), batch_size), "score"):
        batch = order[start : start + batch_size]
        rows = [[*windows[i].context, *windows[i].targets] for i in batch]
        input_ids = torch.zeros(len(rows), max(map(len, rows)) - 1, dtype=torch.long)
        for row, ids in enumerate(rows):
            input_ids[row, : len(ids) - 1] = torch.tensor(ids[:-1])
        hidden = model.hidden(input_ids.to(device))
        for row, i in enumerate(batch):
            context, targets = windows[i]
            logits = model.head(hidden[row, len(context) - 1 : len(context) - 1 + len(targets)]).float()
            expected = torch.tensor(targets, dtype=torch.long, device=device)
            log_probabilities = logits.log_softmax(-1).gather(1, expected[:, None])
            found[i] = (log_probabilities.double().sum().item(), bool((logits.argmax(-1) == expected).all()))
    return found
