"""The words behind the masks of a text, by a trained BERT or Longformer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from src.checkpoint import load_writer
from src.errors import InputError
from src.tokenization import pad_rows
from src.trained_bert import TrainedBERT

Candidates = list[tuple[str, float]]  # words with their probabilities, the likeliest first


class MaskFiller(TrainedBERT[Any]):
    """A trained BERT or Longformer that finds the words behind masks."""

    @property
    def mask(self) -> str:
        """The mask, as its tokenizer writes it."""
        return self.tokenizer.id_to_token(self.special_ids["mask_token"]) or ""

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
        padded = pad_rows(rows, self.special_ids["pad_token"], self.model.config.max_seq_len)
        input_ids, attention_mask = map(torch.from_numpy, padded)
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


def mask_filler_of(content: dict[str, Any], path: str | Path, device: str = "cpu") -> MaskFiller:
    """Make the mask filler of a checkpoint; ``path`` names it in errors."""
    if "masked_words" in content.get("untrained", ()):
        raise InputError(
            f"checkpoint {path} was imported from {content['imported_from']}, which has no head for masked words: "
            "train one first"
        )
    model, tokenizer, _ = load_writer(content, path, "fill-mask")
    return MaskFiller(model, tokenizer, device)
