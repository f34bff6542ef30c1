"""Groups of a query, the passage that answers it and passages that do not, as batches for two towers or for one."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.data.store import IGNORED, BatchedRows, Key
from src.extras.retrieval.data.examples import Examples
from src.tokenization import bert_row, pad_pairs, pad_rows

NO_PASSAGE = -1  # the number of a passage that only fills up a group


class Group(NamedTuple):
    """A query with its passages, the positive one first, and their numbers."""

    query: list[int]
    passages: list[list[int]]
    numbers: list[int]


class RankingGroups(BatchedRows):
    """Groups by (epoch, index), each a function of the seed and these two alone; index -1 is a group without target.

    Args:
        examples: the queries and passages.
        hard: finds negatives; None where there are none.
        negatives: passages a group beside the positive one: those known of the query, then hard ones.
        special_ids: the ids of the special tokens, by HuggingFace's names for the tokens.
        query_len: tokens of a query at most, as a row.
        seq_len: tokens of a passage, or of a pair, at most.
        seed: None for evaluation, which is the same in every run and epoch.
    """

    def __init__(
        self,
        examples: Examples,
        hard: "HardNegatives | None",
        negatives: int,
        special_ids: dict[str, int],
        query_len: int,
        seq_len: int,
        seed: int | None,
    ) -> None:
        self.examples, self.hard, self.negatives = examples, hard, negatives
        self.special_ids, self.query_len, self.seq_len, self.seed = special_ids, query_len, seq_len, seed

    def __len__(self) -> int:
        return len(self.examples)

    def group(self, key: Key) -> Group:
        """Draw the tokens of a group."""
        epoch, index = key
        size = 1 + self.negatives
        if index < 0:
            return Group([], [[]] * size, [NO_PASSAGE] * size)
        rng = np.random.default_rng([0, 0, index] if self.seed is None else [self.seed, epoch, index])
        example = self.examples.draw(index, rng)
        query = example.query[: self.query_len - 2]
        numbers = rng.permutation(example.negatives).astype(int).tolist()[: self.negatives]
        if self.hard is not None and len(numbers) < self.negatives:
            known = (example.number, *example.negatives)
            numbers += self.hard.draw(query, known, self.negatives - len(numbers), rng)
        passages = [example.positive, *(self.examples.negative(number, rng) for number in numbers)]
        missing = size - len(passages)
        return Group(
            query.tolist(),
            [passage.tolist() for passage in passages] + [[]] * missing,
            [example.number, *numbers] + [NO_PASSAGE] * missing,
        )

    def __getitems__(self, keys: list[Key]) -> dict[str, Tensor]:
        """Give a batch: rows, ``labels`` (batch,), the right position, and ``passage_numbers`` (batch, group)."""
        groups = [self.group(key) for key in keys]
        batch = {
            **self.rows(groups),
            "passage_numbers": np.array([group.numbers for group in groups]),
            "labels": np.array([0 if index >= 0 else IGNORED for _, index in keys]),
        }
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def rows(self, groups: list[Group]) -> dict[str, NDArray[np.int64]]:
        """Make the arrays that a network reads.

        Returns:
            ``query_input_ids`` and ``query_attention_mask``, (batch, seq) each; ``input_ids`` and ``attention_mask``
            of the passages, (batch, group, seq) each.
        """
        queries = [bert_row([group.query], self.query_len, self.special_ids)[0] for group in groups]
        passages = [bert_row([p], self.seq_len, self.special_ids)[0] for group in groups for p in group.passages]
        query_ids, query_mask = pad_rows(queries, self.special_ids["pad_token"], self.query_len)
        input_ids, attention_mask = pad_rows(passages, self.special_ids["pad_token"], self.seq_len)
        shape = (len(groups), 1 + self.negatives, -1)
        return {
            "query_input_ids": query_ids,
            "query_attention_mask": query_mask,
            "input_ids": input_ids.reshape(shape),
            "attention_mask": attention_mask.reshape(shape),
        }


class PairGroups(RankingGroups):
    """Groups whose rows are pairs, ``[CLS] query [SEP] passage [SEP]``."""

    def rows(self, groups: list[Group]) -> dict[str, NDArray[np.int64]]:
        """Make ``input_ids``, ``attention_mask`` and ``token_type_ids``, (batch, group, seq) each."""
        pairs = [
            bert_row([group.query, passage], self.seq_len, self.special_ids)
            for group in groups
            for passage in group.passages
        ]
        shape = (len(groups), 1 + self.negatives, -1)
        arrays = pad_pairs(pairs, self.special_ids["pad_token"], self.seq_len)
        return {name: array.reshape(shape) for name, array in arrays.items()}


# ---- hard negatives


def write_bm25(passages: Iterable[NDArray[np.integer]], vocab_size: int, folder: Path, split: str) -> None:
    """Write the BM25 scores of a split's passages, by their tokens."""
    from bm25s import BM25

    scorer = BM25()
    vocabulary = {str(i): i for i in range(vocab_size)}
    scorer.index(([passage.tolist() for passage in passages], vocabulary), False, show_progress=sys.stderr.isatty())
    scorer.save(folder, **_names(split))


def _names(split: str) -> dict[str, str]:
    parts = {"data": "npy", "indices": "npy", "indptr": "npy", "vocab": "json", "params": "json"}
    return {f"{part}_name": f"{split}.bm25.{part}.{ending}" for part, ending in parts.items()}


class HardNegatives:
    """Draw passages that share the most words with a query and do not answer it: the best that BM25 finds for it.

    Args:
        folder: that :func:`write_bm25` wrote into; it is memory-mapped.
        split: of the data.
        depth: how many of the best are drawn from.
    """

    def __init__(self, folder: Path, split: str, depth: int) -> None:
        from bm25s import BM25

        self.scorer = BM25.load(folder, **_names(split), mmap=True, load_vocab=False)
        self.depth = depth

    def draw(self, query: NDArray[np.integer], exclude: tuple[int, ...], n: int, rng: np.random.Generator) -> list[int]:
        """Draw the numbers of up to ``n`` passages that are not among ``exclude``, in random order."""
        scores = self.scorer.get_scores_from_ids(np.unique(query).tolist())
        depth = min(self.depth + len(exclude), len(scores))
        best = np.argpartition(scores, -depth)[-depth:]
        best = np.setdiff1d(best, exclude)
        best = best[np.argsort(-scores[best], kind="stable")][: self.depth]
        return rng.permutation(best)[:n].tolist()
