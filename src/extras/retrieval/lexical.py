"""BM25 over passages (Robertson et al. 1994), by `bm25s`."""

import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import regex
from bm25s import BM25
from bm25s.tokenization import Tokenizer
from numpy.typing import NDArray

from src.errors import InputError
from src.tokenization import UNSPACED

NO_STEMMER = "none"
# a letter with its accents and vowel signs, in a run of them without a space; or a word, which has them too
PIECE = regex.compile(rf"(?P<run>(?:{UNSPACED}\p{{M}}*)+)|(?:(?!{UNSPACED})\w)+")
LETTER = regex.compile(r"\w\p{M}*")


class Words:
    """Texts to words: in lower case, by the Snowball stemmer of a language, and in English without its stop words.

    Where a script puts no space between words, each letter counts as a word and so does each pair of neighbours, which
    finds words of any length without a dictionary.

    Args:
        language: such as ``english``, or ``none`` to leave words as they are.
    """

    def __init__(self, language: str) -> None:
        import Stemmer

        if language != NO_STEMMER and language not in Stemmer.algorithms():
            raise InputError(f"there is no stemmer {language!r}: choose none, {', '.join(Stemmer.algorithms())}")
        stemmer = None if language == NO_STEMMER else Stemmer.Stemmer(language)
        stopwords = "english" if language == "english" else []
        # by default bm25s leaves out words of one letter, which are all of a word in some languages
        self._tokenizer = Tokenizer(splitter=_pieces, stopwords=stopwords, stemmer=stemmer)

    def of(self, texts: Iterable[str]) -> list[list[str]]:
        """Give the words of each text."""
        found = self._tokenizer.tokenize(list(texts), update_vocab=True, return_as="string", show_progress=False)
        return [[word for word in words if word] for words in found]  # of no words it makes an empty one


def _pieces(text: str) -> list[str]:
    pieces = []
    for found in PIECE.finditer(text):
        letters = LETTER.findall(found["run"]) if found["run"] else []
        pieces += [*letters, *(a + b for a, b in pairwise(letters))] or [found[0]]
    return pieces


def bm25_scores(query: str, texts: Sequence[str], language: str) -> NDArray[np.float32]:
    """Score texts by the words that they share with a query, weighed by these texts alone: (texts,)."""
    words = Words(language)
    scorer, found = BM25(), words.of(texts)
    if not any(found):
        return np.zeros(len(texts), np.float32)
    scorer.index(found, create_empty_token=False, show_progress=False)
    ids = scorer.get_tokens_ids(words.of([query])[0])
    return scorer.get_scores_from_ids(ids) if ids else np.zeros(len(texts), np.float32)


def write_bm25(words: Sequence[Sequence[str]], folder: Path) -> None:
    """Write the scores of passages by their words, each passage by its row in the sequence."""
    scorer = BM25()
    scorer.index(words, create_empty_token=False, show_progress=sys.stderr.isatty())
    scorer.save(folder, show_progress=False)


class Lexical:
    """Search by BM25, memory-mapped.

    Args:
        folder: that :func:`write_bm25` wrote into.
        language: of the stemmer that the passages' words were made with.
    """

    def __init__(self, folder: Path, language: str) -> None:
        self._scorer = BM25.load(folder, mmap=True)
        self._words = Words(language)

    def search(self, query: str, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the rows and scores of up to ``k`` passages that share a word with the query, the best first."""
        ids = self._scorer.get_tokens_ids(self._words.of([query])[0])
        if not ids:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        scores = self._scorer.get_scores_from_ids(ids)
        best = np.argpartition(-scores, min(k, len(scores)) - 1)[:k]
        best = best[np.lexsort((best, -scores[best]))]  # of equal scores, the first passage first
        best = best[scores[best] > 0]
        return best.astype(np.int64), scores[best]
