"""The masks of masked language modelling (Devlin et al. 2018, section 3.1 and appendix A.1)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORED = -100  # the label of a position that is not predicted


@dataclass(frozen=True)
class Masking:
    """How a sequence is masked.

    Args:
        mask_id: the id of [MASK].
        ordinary_ids: the ids that a random replacement is drawn from: all but the special ones.
        rate: share of the maskable tokens that is to be predicted.
        whole_words: whether all tokens of a word are predicted together.
    """

    mask_id: int
    ordinary_ids: NDArray[np.int64]
    rate: float = 0.15
    whole_words: bool = False

    def most(self, length: int) -> int:
        """How many positions of a sequence of this length are predicted at most."""
        return int(self.rate * length) + 1

    def apply(
        self,
        input_ids: NDArray[np.int64],
        maskable: NDArray[np.bool_],
        word_starts: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Choose the positions to predict, and hide 80% of them behind [MASK] and 10% behind random tokens.

        Args:
            input_ids: (seq,).
            maskable: (seq,), false at special tokens.
            word_starts: (seq,), true at the first token of each word.
            rng: all chance comes from it.

        Returns:
            The masked ids, and the labels: the original id where it is to be predicted, else -100. At least one is,
            unless there is no maskable token, or whole words are masked and each is longer than the rate allows.
        """
        positions = np.flatnonzero(maskable)
        if not len(positions):
            return input_ids, np.full_like(input_ids, IGNORED)
        # rounded up or down at random, so that the rate is met in the mean whatever the length
        count = max(1, int(self.rate * len(positions) + rng.random()))
        if self.whole_words:
            chosen = _whole_words(positions, word_starts[positions], count, rng)
        else:
            chosen = rng.permutation(positions)[:count]
        labels = np.full_like(input_ids, IGNORED)
        labels[chosen] = input_ids[chosen]
        fate = rng.random(len(chosen))
        masked = input_ids.copy()
        masked[chosen[fate < 0.8]] = self.mask_id
        swapped = chosen[fate >= 0.9]
        masked[swapped] = rng.choice(self.ordinary_ids, len(swapped))
        return masked, labels


def _whole_words(
    positions: NDArray[np.int64], starts: NDArray[np.bool_], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Words at random, each if it still fits into ``count`` tokens."""
    first = np.flatnonzero(starts)
    words = np.split(positions, first[first > 0])
    chosen: list[NDArray[np.int64]] = []
    left = count
    for i in rng.permutation(len(words)):
        if len(words[i]) <= left:
            chosen.append(words[i])
            left -= len(words[i])
        if not left:
            break
    return np.concatenate([positions[:0], *chosen])
