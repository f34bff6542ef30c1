"""generate: continue prompts with a trained GPT."""

import torch

from src.checkpoint import load_writer, read_checkpoint
from src.cli.verb import Fraction, NonNegative, NonNegativeFloat, Positive
from src.coverage import MeasuredTokenizer
from src.decoding import decode_continuation, encode_prompt
from src.decoding import generate as continuations_of
from src.errors import InputError
from src.hardware import to_device


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
    model, tokenizer, special_tokens = load_writer(read_checkpoint(checkpoint), checkpoint, "generate")
    eos = tokenizer.token_to_id(special_tokens["eos_token"])
    assert eos is not None
    texts = prompt or [""]
    prompts = [encode_prompt(tokenizer, text, eos) for text in texts]
    context = model.config.context
    for text, ids in zip(texts, prompts, strict=True):
        if context is not None and len(ids) > context:
            raise InputError(f"prompt {text[:40]!r}... is {len(ids)} tokens, the context {context}: shorten it")
        measured = MeasuredTokenizer(tokenizer, f"prompt {text[:40]!r}")
        measured.encode([text])
        if measured.lost:
            lost = "".join(measured.lost)
            raise InputError(
                f"prompt {text[:40]!r} has characters that are not in this checkpoint's vocabulary: {lost[:40]!r}"
            )
    generator = torch.Generator(to_device(model, device)).manual_seed(seed)
    continuations = continuations_of(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        eos_id=eos,
        generator=generator,
    )
    rows = zip(texts, prompts, continuations, strict=True)
    print("\n\n".join(text + decode_continuation(tokenizer, ids, new) for text, ids, new in rows))
