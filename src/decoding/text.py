"""From text to prompts, and from sampled tokens back to text."""

from collections.abc import Iterator, Sequence
from os.path import commonprefix
from typing import Any

import torch
from tokenizers import Tokenizer

from src.coverage import MeasuredTokenizer
from src.decoding.sampling import stream
from src.errors import InputError
from src.models import GPT
from src.tokenization import require_token, start_ids

INCOMPLETE = "\ufffd"  # in the place of bytes that are not yet a character


def encode_prompt(tokenizer: Tokenizer, text: str, eos_id: int, start: Sequence[int] = ()) -> list[int]:
    """The tokens of a text to continue, as those of a training document; the empty text begins a document.

    Without the special tokens of the tokenizer's template: behind an end token there is nothing to continue. What
    begins each text is ``start``, of :func:`src.tokenization.start_ids`.
    """
    return [*start, *tokenizer.encode(text, add_special_tokens=False).ids] or [eos_id]


def decode_continuation(tokenizer: Tokenizer, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """What a continuation adds to the text of its prompt.

    Both are decoded together: a decoder may drop the space before the first token of all.
    """
    before, together = tokenizer.decode(prompt), tokenizer.decode([*prompt, *ids])
    return together[len(commonprefix([before, together])) :]  # noqa: RUF071  characters are what is to be compared


class TextStream:
    """The text of a continuation piece by piece, as soon as its characters are complete.

    Joined, the pieces are :func:`decode_continuation` of all tokens.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self.tokenizer, self.prompt = tokenizer, prompt
        self.ids: list[int] = []
        self.text = ""  # of all pieces so far

    def add(self, token: int) -> str:
        """Add a token, and return the text that it completes, which may be none."""
        self.ids.append(token)
        text = decode_continuation(self.tokenizer, self.prompt, self.ids)
        return "" if text.endswith(INCOMPLETE) or not text.startswith(self.text) else self._next(text)

    def rest(self) -> str:
        """Return the text behind all pieces so far, complete or not."""
        return self._next(decode_continuation(self.tokenizer, self.prompt, self.ids))

    def _next(self, text: str) -> str:
        piece, self.text = text[len(self.text) :], text
        return piece


def stream_text(model: GPT, tokenizer: Tokenizer, prompt: list[int], *, eos_id: int, **settings: Any) -> Iterator[str]:
    """Yield the continuation of one prompt as the pieces of a :class:`TextStream`. Settings as :func:`stream`."""
    device = model.token_embedding.weight.device
    text = TextStream(tokenizer, prompt)
    for token in stream(model, torch.tensor([prompt], device=device), eos_id=eos_id, **settings):
        if int(token) == eos_id:
            break
        yield text.add(int(token))
    yield text.rest()


class Writer:
    """A trained GPT with its tokenizer and the token that ends a text, and what it can continue."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, special_tokens: dict[str, str]) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.eos = require_token(tokenizer, special_tokens["eos_token"], "eos_token")
        self.start = start_ids(tokenizer, special_tokens)
        self._measured = MeasuredTokenizer(tokenizer, "a prompt")

    def encode(self, text: str) -> list[int]:
        """Make the tokens of a prompt; refuse one that the network or its vocabulary has no room for."""
        ids = encode_prompt(self.tokenizer, text, self.eos, self.start)
        context = self.model.config.context
        if context is not None and len(ids) > context:
            raise InputError(f"prompt {text[:40]!r}... is {len(ids)} tokens, the context {context}: shorten it")
        self._measured.lost.clear()
        self._measured.encode([text])
        if self._measured.lost:
            lost = "".join(self._measured.lost)
            raise InputError(
                f"prompt {text[:40]!r} has characters that are not in this checkpoint's vocabulary: {lost[:40]!r}"
            )
        return ids
