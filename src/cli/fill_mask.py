"""fill-mask: the likeliest words behind [MASK], by a trained BERT."""

from collections.abc import Sequence
from typing import Any

import torch

from src.checkpoint import load_writer, read_checkpoint
from src.cli.verb import Positive
from src.errors import InputError
from src.hardware import to_device
from src.tokenization import bert_ids, pad_rows

Candidates = list[tuple[str, float]]  # words with their probabilities, the likeliest first


def fill_mask(checkpoint: str, text: str, top_k: Positive = 5, device: str = "cpu") -> None:
    """Print the candidates for each mask of a text with their probabilities, the likeliest first.

    Args:
        checkpoint: a checkpoint of a BERT or Longformer
        text: with [MASK] in it: "Paris is the [MASK] of France."
        top_k: candidates for each mask
        device: cpu, cuda, cuda:1, mps, ...
    """
    filler = MaskFiller(read_checkpoint(checkpoint), checkpoint, device)
    (masks,) = filler.fill([filler.encode(text)], top_k)
    for i, candidates in enumerate(masks, 1):
        if len(masks) > 1:
            print(f"{filler.mask} {i}")
        for word, probability in candidates:
            print(f"{probability:.4f}  {word}")


class MaskFiller:
    """A trained BERT or Longformer with its tokenizer, on a device."""

    def __init__(self, content: dict[str, Any], checkpoint: str, device: str = "cpu") -> None:
        if "masked_words" in content.get("untrained", ()):
            raise InputError(
                f"checkpoint {checkpoint} was imported from {content['imported_from']}, which has no head for "
                "masked words: train one first"
            )
        self.model, self.tokenizer, special_tokens = load_writer(content, checkpoint, "fill-mask")
        self.special_ids, self.mask = bert_ids(self.tokenizer), special_tokens["mask_token"]
        self.device = to_device(self.model, device)

    def encode(self, text: str) -> list[int]:
        """Make ``[CLS] text [SEP]``; refuse a text without a mask, or of more tokens than positions."""
        special, positions = self.special_ids, self.model.config.max_seq_len
        inner = self.tokenizer.encode(text, add_special_tokens=False).ids
        ids = [special["cls_token"], *inner, special["sep_token"]]
        if special["mask_token"] not in ids:
            raise InputError(
                f"the text {text[:40]!r} has no {self.mask}: write {self.mask} where a word is to be found"
            )
        if len(ids) > positions:
            raise InputError(f"the text has {len(ids)} tokens, the network {positions} positions: shorten it")
        return ids

    @torch.inference_mode()
    def fill(self, rows: Sequence[list[int]], top_k: int) -> list[list[Candidates]]:
        """Find the candidates for each mask of each row, as one batch."""
        padded = pad_rows(rows, self.special_ids["pad_token"])
        # the padding to a multiple of 8 may go beyond the last position
        input_ids, attention_mask = (torch.from_numpy(a[:, : self.model.config.max_seq_len]) for a in padded)
        is_mask = input_ids == self.special_ids["mask_token"]
        most = int(is_mask.sum(1).max())
        # the masks of a row come first, in their order: the sort is stable
        positions = is_mask.int().argsort(dim=1, descending=True, stable=True)[:, :most]
        ids, attended, at = (tensor.to(self.device) for tensor in (input_ids, attention_mask, positions))
        logits = self.model(ids, attention_mask=attended, masked_positions=at).masked_words
        best = torch.softmax(logits.float(), -1).topk(min(top_k, logits.shape[-1]))
        found = [
            [self._candidates(*mask) for mask in zip(probabilities, words, strict=True)]
            for probabilities, words in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        return [masks[:n] for masks, n in zip(found, is_mask.sum(1).tolist(), strict=True)]

    def _candidates(self, probabilities: list[float], words: list[int]) -> Candidates:
        # a network may have more embeddings than its tokenizer has tokens
        return [(self.tokenizer.id_to_token(word) or "", p) for word, p in zip(words, probabilities, strict=True)]
