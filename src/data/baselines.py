"""What models that only count reach on a network's targets, to tell whether it has learnt anything."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DISCOUNT = 0.75  # of each count of a pair
# what is counted of a split at most, from its beginning: a second's work
MOST_TOKENS = 4_000_000
MOST_STREAMED = 500_000  # tokens that have to be made of text first
MOST_PAIRS = 4_000  # of sentences


class Targets(NamedTuple):
    """The targets of a split, in order.

    Args:
        ids: (targets,), of tokens or of labels.
        contexts: (targets,), the id of the token before each; None where that is not what a target is predicted from.
        extent: which part of the split these are, for people; empty where they are all of it.
    """

    ids: NDArray[np.integer]
    contexts: NDArray[np.integer] | None = None
    extent: str = ""


class Baselines(NamedTuple):
    """What the simplest models reach on the validation split.

    Args:
        figures: by model and by metric, as the task logs it without the split.
        note: what was left out, for people.
    """

    figures: dict[str, dict[str, float]]
    note: str = ""


def extent(most: int, total: int, what: str) -> str:
    """Say which part of a split is counted, where it is not all."""
    return f"the first {most:,} of {total:,} {what}" if total > most else ""


def note(*extents: str) -> str:
    """Say what the counts were bounded to, where they were."""
    bounds = " and ".join(filter(None, extents))
    return f"the baselines are of {bounds}" if bounds else ""


def unigram(ids: NDArray[np.integer], n_ids: int) -> NDArray[np.float64]:
    """Estimate the probability of each id by its frequency plus one (Laplace), (n_ids,): one never met has some."""
    counts = np.bincount(ids, minlength=n_ids) + 1
    return counts / counts.sum()


class Bigram:
    """Each token by the one before it: absolute discounting, interpolated with the unigram (Ney, Essen, Kneser 1994).

    p(w | v) = max(c(v, w) - D, 0) / c(v) + D n(v) / c(v) p(w), where n(v) different tokens follow v, and D = 0.75.
    Where v was never met, p(w).

    Args:
        contexts: (targets,), the token before each.
        ids: (targets,).
        n_ids: size of the vocabulary.
    """

    def __init__(self, contexts: NDArray[np.integer], ids: NDArray[np.integer], n_ids: int) -> None:
        self.n_ids, self.unigram = n_ids, unigram(ids, n_ids)
        self.pairs, self.counts = np.unique(self._pair(contexts, ids), return_counts=True)
        self.met = np.bincount(contexts, minlength=n_ids)
        self.followers = np.bincount(self.pairs // n_ids, minlength=n_ids)

    def _pair(self, contexts: NDArray[np.integer], ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Both in one number, by which pairs are sorted and found."""
        return contexts.astype(np.int64) * self.n_ids + ids

    def probabilities(self, contexts: NDArray[np.integer], ids: NDArray[np.integer]) -> NDArray[np.float64]:
        """Estimate the probability of each target after its context, (targets,)."""
        wanted = self._pair(contexts, ids)
        positions = np.searchsorted(self.pairs, wanted).clip(max=len(self.pairs) - 1)
        counts = np.where(self.pairs[positions] == wanted, self.counts[positions], 0)
        met = np.maximum(self.met[contexts], 1)
        rest = np.where(self.met[contexts] > 0, DISCOUNT * self.followers[contexts] / met, 1.0)
        return np.maximum(counts - DISCOUNT, 0) / met + rest * self.unigram[ids]

    def mean_loss(self, contexts: NDArray[np.integer], ids: NDArray[np.integer]) -> float:
        """Average the cross-entropy in nats of targets after their contexts."""
        # each different pair once, and in the order of those to be searched: many times faster than one by one
        pairs, counts = np.unique(self._pair(contexts, ids), return_counts=True)
        losses = -np.log(self.probabilities(*np.divmod(pairs, self.n_ids)))
        return float(counts @ losses / len(ids))


def mean_losses(train: Targets, validation: Targets, n_ids: int) -> dict[str, float]:
    """Average the cross-entropy in nats per target of each model; of the bigram where the targets have contexts."""
    losses = {
        "uniform": float(np.log(n_ids)),
        "unigram": float(-np.log(unigram(train.ids, n_ids))[validation.ids].mean()),
    }
    if train.contexts is not None and validation.contexts is not None:
        bigram = Bigram(train.contexts, train.ids, n_ids)
        losses["bigram"] = bigram.mean_loss(validation.contexts, validation.ids)
    return losses


def majority_accuracy(train: Targets, validation: Targets) -> float:
    """Compute how often the most frequent target of training is the right one."""
    return float((validation.ids == np.bincount(train.ids).argmax()).mean())
