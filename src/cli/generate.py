"""generate: continue prompts with a trained GPT."""

import torch

from src.checkpoint import load_writer, read_checkpoint
from src.cli.parser import VerbParser, fraction, non_negative, positive, seed
from src.coverage import MeasuredTokenizer
from src.decoding import decode_continuation, encode_prompt, generate
from src.errors import InputError
from src.hardware import to_device


def parser() -> VerbParser:
    """The options of `generate`."""
    options = VerbParser(prog="python -m src generate", description=__doc__)
    options.add_argument("--checkpoint", required=True, metavar="PATH", help="a checkpoint of a GPT")
    options.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="what to continue; repeat it for several, decoded as one batch",
    )
    options.add_argument(
        "--max-new-tokens", type=positive, default=200, metavar="N", help="length at most (%(default)s)"
    )
    options.add_argument("--temperature", type=non_negative, default=0.8, metavar="T", help="0 is greedy (%(default)s)")
    options.add_argument("--top-k", type=positive, metavar="K", help="draw from the K likeliest tokens")
    options.add_argument("--top-p", type=fraction, metavar="P", help="draw from the likeliest tokens that make up P")
    options.add_argument("--seed", type=seed, default=0, metavar="N", help="of the draws (%(default)s)")
    options.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps, ... (%(default)s)")
    return options


def main(arguments: list[str]) -> None:
    """Print each prompt with its continuation, in order.

    Raises:
        InputError: a bad option or checkpoint, a prompt longer than the context, or one the tokenizer cannot write.
    """
    options = parser().parse_args(arguments[1:])
    checkpoint = read_checkpoint(options.checkpoint)
    model, tokenizer, special_tokens = load_writer(checkpoint, options.checkpoint, "generate")
    eos = tokenizer.token_to_id(special_tokens["eos_token"])
    texts = options.prompt or [""]
    assert eos is not None
    prompts = [encode_prompt(tokenizer, text, eos) for text in texts]
    for text, prompt in zip(texts, prompts, strict=True):
        context = model.config.context
        if context is not None and len(prompt) > context:
            raise InputError(f"prompt {text[:40]!r}... is {len(prompt)} tokens, the context {context}: shorten it")
        measured = MeasuredTokenizer(tokenizer, f"prompt {text[:40]!r}")
        measured.encode([text])
        if measured.lost:
            lost = "".join(measured.lost)
            raise InputError(
                f"prompt {text[:40]!r} has characters that are not in this checkpoint's vocabulary: {lost[:40]!r}"
            )
    device = to_device(model, options.device)
    generator = torch.Generator(device).manual_seed(options.seed)
    continuations = generate(
        model,
        prompts,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        eos_id=eos,
        generator=generator,
    )
    rows = zip(texts, prompts, continuations, strict=True)
    print("\n\n".join(text + decode_continuation(tokenizer, prompt, ids) for text, prompt, ids in rows))
