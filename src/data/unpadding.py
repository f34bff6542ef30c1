"""Batches without padding: the documents of a batch end to end (Zeng et al. 2022; ModernBERT, section 2.1.2)."""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from src.data.store import IGNORED


def unpad(batch: dict[str, Tensor], rows: int = 1) -> dict[str, Tensor]:
    """Put the real tokens of a padded batch of masked documents end to end, in one row or in some.

    One row has no padding. Several, of which a pipeline makes its micro-batches, are as long as the longest: the
    longest document goes first, each to the row with the fewest tokens, so that no row lacks more than a document.

    Args:
        batch: as :class:`src.data.masking.MaskedDocuments` gives it: each row a document.
        rows: to fill.

    Returns:
        The same tokens as (rows, T); ``document_starts`` (rows, most), where each document of a row begins, padding
        as one of them, and T in unused places; and ``masked_positions`` in these rows.
    """
    lengths = batch["attention_mask"].sum(1)
    dealt: list[list[int]] = [[] for _ in range(rows)]
    held = [0] * rows
    for document in lengths.argsort(descending=True, stable=True).tolist() if rows > 1 else range(len(lengths)):
        row = held.index(min(held))
        dealt[row].append(document)
        held[row] += int(lengths[document])

    def end_to_end(name: str, filler: int) -> Tensor:
        tokens = [[batch[name][i, : lengths[i]] for i in documents] for documents in dealt]
        return pad_sequence([torch.cat([batch[name][0, :0], *row]) for row in tokens], True, filler)

    starts = [torch.cat([lengths.new_zeros(1), lengths[documents].cumsum(0)]) for documents in dealt]
    labels = end_to_end("labels", IGNORED)
    positions = [(row != IGNORED).nonzero()[:, 0] for row in labels]
    return {
        "input_ids": end_to_end("input_ids", 0),
        "attention_mask": end_to_end("attention_mask", 0),
        "token_type_ids": end_to_end("token_type_ids", 0),
        "labels": labels,
        "masked_positions": pad_sequence(positions, True, 0),
        "document_starts": pad_sequence(starts, True, max(held)),
    }
