"""generate: continue prompts with a trained GPT."""

from src.cli.verb import Fraction, NonNegative, NonNegativeFloat, Positive


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
    # with torch, for which help does not wait
    import torch

    from src.checkpoint import load_writer, read_checkpoint
    from src.decoding import Writer, decode_continuation
    from src.decoding import generate as continuations_of
    from src.hardware import to_device

    writer = Writer(*load_writer(read_checkpoint(checkpoint), checkpoint, "generate"))
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
