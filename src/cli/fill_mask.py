"""fill-mask: the likeliest words behind [MASK], by a trained BERT."""

import torch

from src.checkpoint import load_writer, read_checkpoint
from src.cli.verb import Positive
from src.errors import InputError
from src.hardware import to_device
from src.tokenization import bert_ids


@torch.inference_mode()
def fill_mask(checkpoint: str, text: str, top_k: Positive = 5, device: str = "cpu") -> None:
    """Print the candidates for each mask of a text with their probabilities, the likeliest first.

    Args:
        checkpoint: a checkpoint of a BERT or Longformer
        text: with [MASK] in it: "Paris is the [MASK] of France."
        top_k: candidates for each mask
        device: cpu, cuda, cuda:1, mps, ...
    """
    content = read_checkpoint(checkpoint)
    if "masked_words" in content.get("untrained", ()):
        raise InputError(
            f"checkpoint {checkpoint} was imported from {content['imported_from']}, which has no head for "
            "masked words: train one first"
        )
    model, tokenizer, special_tokens = load_writer(content, checkpoint, "fill-mask")
    special, mask = bert_ids(tokenizer), special_tokens["mask_token"]
    ids = [special["cls_token"], *tokenizer.encode(text, add_special_tokens=False).ids, special["sep_token"]]
    positions = [i for i, token in enumerate(ids) if token == special["mask_token"]]
    if not positions:
        raise InputError(f"the text {text[:40]!r} has no {mask}: write {mask} where a word is to be found")
    if len(ids) > model.config.max_seq_len:
        raise InputError(
            f"the text has {len(ids)} tokens, the network {model.config.max_seq_len} positions: shorten it"
        )
    to = to_device(model, device)
    input_ids, masked_positions = (torch.tensor([row], device=to) for row in (ids, positions))
    logits = model(input_ids, masked_positions=masked_positions).masked_words[0]
    candidates = torch.softmax(logits, -1).topk(min(top_k, logits.shape[-1]))
    for i, (probabilities, words) in enumerate(zip(*map(torch.Tensor.tolist, candidates), strict=True), 1):
        if len(positions) > 1:
            print(f"{mask} {i}")
        for probability, word in zip(probabilities, words, strict=True):
            print(f"{probability:.4f}  {tokenizer.id_to_token(word)}")
