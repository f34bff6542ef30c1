"""generate: continue prompts with a trained GPT."""

import torch

from src.checkpoint import Trained, load_writer, read_checkpoint
from src.cli.verb import Fraction, NonNegative, NonNegativeFloat, Positive
from src.coverage import MeasuredTokenizer
from src.decoding import decode_continuation, encode_prompt
from src.decoding import generate as continuations_of
from src.errors import InputError
from src.hardware import to_device
from src.models import GPT
from src.tokenization import require_token


def generate(
    checkpoint: str,
    prompt: list[str] | None = None,
    max_new_tokens: Positive = 200,
    temperature: NonNegativeFloat = 0.8,
    top_k: Positive | None = None,
    top_p: Fraction | None = None,
    seed: NonNegative = 0,
    device: str = "cpu",
) -> None:
    """Print each prompt with its continuation by a trained GPT, in order.

    Args:
        checkpoint: a checkpoint of a GPT
        prompt: what to continue; repeat it for several, decoded as one batch
        max_new_tokens: length at most
        temperature: 0 is greedy
        top_k: draw from the K likeliest tokens
        top_p: draw from the likeliest tokens that make up P
        seed: of the draws
        device: cpu, cuda, cuda:1, mps, ...
    """
    writer = Writer(load_writer(read_checkpoint(checkpoint), checkpoint, "generate"))
    texts = prompt or [""]
    prompts = [writer.encode(text) for text in texts]
    generator = torch.Generator(to_device(writer.model, device)).manual_seed(seed)
    continuations = continuations_of(
        writer.model,
        prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        eos_id=writer.eos,
        generator=generator,
    )
    rows = zip(texts, prompts, continuations, strict=True)
    print("\n\n".join(text + decode_continuation(writer.tokenizer, ids, new) for text, ids, new in rows))


class Writer:
    """A trained GPT with its tokenizer, and what it can continue."""

    def __init__(self, trained: Trained[GPT]) -> None:
        self.model, self.tokenizer, special_tokens = trained
        self.eos = require_token(self.tokenizer, special_tokens["eos_token"], "eos_token")
        self._measured = MeasuredTokenizer(self.tokenizer, "a prompt")

    def encode(self, text: str) -> list[int]:
        """Make the tokens of a prompt; refuse one that the network or its vocabulary has no room for."""
        ids = encode_prompt(self.tokenizer, text, self.eos)
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
