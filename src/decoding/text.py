"""Text as it is decoded."""

from collections.abc import Iterator
from typing import Any

import torch
from tokenizers import Tokenizer

from src.decoding.sampling import stream
from src.models import GPT

INCOMPLETE = "\ufffd"  # what stands for bytes that are no character yet


def stream_text(model: GPT, tokenizer: Tokenizer, prompt: list[int], *, eos_id: int, **settings: Any) -> Iterator[str]:
    """Yield the continuation of a prompt piece by piece, as soon as its characters are whole.

    Joined, the pieces are what the tokens together decode to. Settings and errors are those of
    :func:`src.decoding.stream`.
    """
    device = model.token_embedding.weight.device
    ids: list[int] = []
    shown = ""
    for token in stream(model, torch.tensor([prompt], device=device), eos_id=eos_id, **settings):
        if int(token) == eos_id:
            break
        ids.append(int(token))
        text = tokenizer.decode(ids)
        if text.startswith(shown) and not text.endswith(INCOMPLETE):
            yield text[len(shown) :]
            shown = text
    yield tokenizer.decode(ids)[len(shown) :]
