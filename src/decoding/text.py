"""From text to prompts, and from sampled tokens back to text."""

from collections.abc import Iterator, Sequence
from os.path import commonprefix
from typing import Any

import torch
from tokenizers import Tokenizer

from src.decoding.sampling import stream
from src.models import GPT

INCOMPLETE = "\ufffd"  # in the place of bytes that are not yet a character


def encode_prompt(tokenizer: Tokenizer, text: str, eos_id: int) -> list[int]:
    """The tokens of a text to continue, as those of a training document; the empty text begins a document.

    Without the special tokens of the tokenizer's template: behind an end token there is nothing to continue.
    """
    return tokenizer.encode(text, add_special_tokens=False).ids or [eos_id]


def decode_continuation(tokenizer: Tokenizer, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """What a continuation adds to the text of its prompt.

    Both are decoded together: a decoder may drop the space before the first token of all.
    """
    before, together = tokenizer.decode(prompt), tokenizer.decode([*prompt, *ids])
    return together[len(commonprefix([before, together])) :]  # noqa: RUF071  characters are what is to be compared


def stream_text(model: GPT, tokenizer: Tokenizer, prompt: list[int], *, eos_id: int, **settings: Any) -> Iterator[str]:
    """Yield the continuation of a prompt piece by piece, as soon as its characters are complete.

    Joined, the pieces are :func:`decode_continuation` of all tokens. Settings are those of :func:`stream`.
    """
    device = model.token_embedding.weight.device
    ids: list[int] = []
    shown = ""
    for token in stream(model, torch.tensor([prompt], device=device), eos_id=eos_id, **settings):
        if int(token) == eos_id:
            break
        ids.append(int(token))
        text = decode_continuation(tokenizer, prompt, ids)
        if text.startswith(shown) and not text.endswith(INCOMPLETE):
            yield text[len(shown) :]
            shown = text
    yield decode_continuation(tokenizer, prompt, ids)[len(shown) :]
