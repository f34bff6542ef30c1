"""fill-mask: the likeliest words behind [MASK], by a trained BERT."""

import torch

from src.checkpoint import load_writer, read_checkpoint
from src.cli.parser import VerbParser, positive
from src.errors import InputError
from src.hardware import to_device
from src.tokenization import bert_ids


def parser() -> VerbParser:
    """The options of `fill-mask`."""
    options = VerbParser(prog="python -m src fill-mask", description=__doc__)
    options.add_argument("--checkpoint", required=True, metavar="PATH", help="a checkpoint of a BERT or Longformer")
    options.add_argument(
        "--text", required=True, metavar="TEXT", help='with [MASK] in it: "Paris is the [MASK] of France."'
    )
    options.add_argument(
        "--top-k", type=positive, default=5, metavar="K", help="candidates for each mask (%(default)s)"
    )
    options.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps, ... (%(default)s)")
    return options


@torch.inference_mode()
def main(arguments: list[str]) -> None:
    """Print the candidates for each mask with their probabilities, the likeliest first.

    Raises:
        InputError: a bad option or checkpoint, a text without a mask, or one with more tokens than positions.
    """
    options = parser().parse_args(arguments[1:])
    checkpoint = read_checkpoint(options.checkpoint)
    if "masked_words" in checkpoint.get("untrained", ()):
        raise InputError(
            f"checkpoint {options.checkpoint} was imported from {checkpoint['imported_from']}, which has no head for "
            "masked words: train one first"
        )
    model, tokenizer, special_tokens = load_writer(checkpoint, options.checkpoint, "fill-mask")
    special = bert_ids(tokenizer)
    words = tokenizer.encode(options.text, add_special_tokens=False).ids
    ids = [special["cls_token"], *words, special["sep_token"]]
    positions = [i for i, token in enumerate(ids) if token == special["mask_token"]]
    if not positions:
        name = special_tokens["mask_token"]
        raise InputError(f"the text {options.text[:40]!r} has no {name}: write {name} where a word is to be found")
    if len(ids) > model.config.max_seq_len:
        raise InputError(
            f"the text has {len(ids)} tokens, the network {model.config.max_seq_len} positions: shorten it"
        )
    device = to_device(model, options.device)
    input_ids, masked_positions = (torch.tensor([row], device=device) for row in (ids, positions))
    logits = model(input_ids, masked_positions=masked_positions).masked_words[0]
    candidates = torch.softmax(logits, -1).topk(min(options.top_k, logits.shape[-1]))
    for i, (probabilities, words) in enumerate(
        zip(candidates.values.tolist(), candidates.indices.tolist(), strict=True)
    ):
        if len(positions) > 1:
            print(f"{special_tokens['mask_token']} {i + 1}")
        for probability, word in zip(probabilities, words, strict=True):
            print(f"{probability:.4f}  {tokenizer.id_to_token(word)}")
