"""Documents as sentences: split by their punctuation, tokenised on disk, and drawn as pairs.

The pairs are those of next-sentence prediction (Devlin et al. 2018, section 3.1 and appendix A.2).
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from src.coverage import MeasuredTokenizer
from src.data.journal import Journal
from src.data.progress import announce
from src.data.store import ArrayWriter, RowWriter, end_to_end, open_array, open_rows, token_dtype
from src.data.texts import Piece, grouped
from src.data.workers import in_parallel
from src.tokenization import UNSPACED, vocabulary_size

# a full stop after these ends no sentence; single letters (initials) and numbers of a list are told apart by their form
ABBREVIATION = regex.compile(
    r"mr|mrs|ms|dr|prof|rev|gen|col|lt|sgt|capt|gov|sen|rep|st|mt|jr|sr|vs|etc|e\.g|i\.e|cf|ca|c|al|no|nos|vol|"
    r"pp|p|ed|eds|fig|figs|ch|sec|inc|ltd|co|corp|dept|univ|est|approx|jan|feb|mar|apr|jun|jul|aug|sep|sept|"
    r"oct|nov|dec|u\.s|u\.k"
)
DRAWS = 6  # random numbers that a pair is drawn by
# why a document with fewer than so many sentences is left out
WHY = {1: "without any token", 2: "of fewer than two sentences (which end with . ! ? and their like, or with a line)"}
# Where a sentence may end: its marks (of any script: UAX 29), closing quotes and brackets, and space, before what may
# begin another. A quotation mark that opens in one language closes in another, where space is behind it.
END = regex.compile(
    r"""(?P<marks>[\p{Sentence_Break=STerm}.．]+)["'\p{Pf}\p{Pe}]*(?P<space>\p{Pi}*\s+)?"""
    r"""(?=["'\p{Pi}\p{Pf}\p{Ps}]*(?P<next>\w)?)"""
)
LETTER_UNSPACED = regex.compile(UNSPACED)
# Thai and Lao have no marks, and a space instead
SPACE = regex.compile(r"(?<=[\p{Thai}\p{Lao}])\s+(?=[\p{Thai}\p{Lao}])")


def split_sentences(document: str) -> list[str]:
    """Split a document into its sentences, in order, each with its punctuation, none empty.

    A line break always ends a sentence: a heading and an item of a list are sentences of their own.
    """
    return [sentence for line in document.splitlines() for sentence in _split_line(line.strip())]


def _split_line(line: str) -> list[str]:
    sentences, start = [], 0
    for end in END.finditer(line):
        if _ends_sentence(line[start : end.start()], end):
            sentences.append(line[start : end.end()].rstrip())
            start = end.end()
    if start < len(line):
        sentences.append(line[start:])
    return sentences if line.isascii() else [part for sentence in sentences for part in SPACE.split(sentence)]


def _ends_sentence(before: str, end: regex.Match[str]) -> bool:
    """Tell whether marks that follow ``before`` end a sentence, by what is on either side of them."""
    marks, following, last = end["marks"], end["next"] or "", before[-1:]
    is_number = last.isdigit()
    if not marks.isascii():
        return not (marks == "．" and is_number and following.isdigit())
    # where a script has no spaces its marks need none; but what follows may be a name such as .NET
    if LETTER_UNSPACED.match(following) or ("." not in marks and LETTER_UNSPACED.match(last)):
        return not (marks == "." and is_number)  # the number of an item
    begins = following.isupper() or following.isdigit() or (_is_caseless(following) and not last.islower())
    return begins and end["space"] is not None and not _abbreviated(before, end[0])


def _is_caseless(letter: str) -> bool:
    """Tell whether a letter is of a script without capitals, such as Arabic, where any word may begin a sentence."""
    return letter.isalpha() and letter.lower() == letter.upper()


def _abbreviated(before: str, mark: str) -> bool:
    """Tell whether a mark that follows ``before`` belongs to an abbreviation."""
    word = before.rpartition(" ")[2].lstrip("\"'“‘([").lower()
    return mark.strip() == "." and (ABBREVIATION.fullmatch(word) is not None or (len(word) == 1 and word.isalpha()))


@dataclass(frozen=True)
class SentenceTokens:
    """Tokenised documents, as arrays that may be memory-mapped.

    Args:
        tokens: (tokens,), the ids of all documents, end to end.
        word_starts: (tokens,), true at the first token of each word.
        sentences: (sentences + 1,), where each sentence begins in ``tokens``, and the end.
        documents: (documents + 1,), where each document begins in ``sentences``, and the end.
    """

    tokens: NDArray[np.integer]
    word_starts: NDArray[np.bool_]
    sentences: NDArray[np.int64]
    documents: NDArray[np.int64]


def write_sentences(
    tokenizer: MeasuredTokenizer, pieces: Iterable[Piece], folder: Path, split: str, least: int = 2
) -> dict[str, int]:
    """Write the sentences of a split, without the documents that have fewer than ``least``, and count them.

    The counts are ``documents``, ``sentences``, ``tokens``, ``too_short`` (documents left out) and ``lost_bytes``.
    """
    journal = Journal(folder, split, tokenizer, n_arrays=4)
    too_short, begin = (journal.counts.get(name, 0) for name in ("too_short", "begin"))
    values, starts, words, ends = journal.lengths
    dtype = token_dtype(tokenizer.tokenizer)
    with (
        RowWriter(folder, f"{split}.tokens", dtype, (values, starts)) as sentences,
        ArrayWriter(folder / f"{split}.word_starts.npy", np.bool_, words) as word_starts,
        ArrayWriter(folder / f"{split}.documents.npy", np.int64, ends) as documents,
    ):
        arrays = (sentences.values, sentences.starts, word_starts, documents)
        if not documents.length:
            documents.extend([0])
        held: list[Sentences] = []  # the beginning of a document that may be too short
        n_pieces = 0
        for group, (pieces_of, counts) in in_parallel(
            partial(_tokenised, tokenizer, dtype, _continues_words(tokenizer.tokenizer)), grouped(journal.rest(pieces))
        ):
            if not held:
                journal.note(n_pieces, tokenizer.counts, arrays, too_short=too_short, begin=begin)
                n_pieces = 0
            n_pieces += len(group)
            tokenizer.add(counts)
            for piece, found in zip(group, pieces_of, strict=True):
                held.append(found)
                if len(sentences) > begin or sum(len(part.ends) for part in held) >= least:
                    for part in held:
                        sentences.extend(part.ids, part.ends)
                        word_starts.extend(part.word_starts)
                    held = []
                if not piece.is_last:
                    continue
                if len(sentences) > begin:
                    documents.extend([len(sentences)])
                else:
                    too_short += 1
                held, begin = [], len(sentences)
    n_documents = documents.length - 1
    if too_short:
        announce(f"left out of {tokenizer.where}: {too_short:,} of {n_documents + too_short:,} documents, {WHY[least]}")
    return {
        "documents": n_documents,
        "sentences": len(sentences),
        "tokens": sentences.values.length,
        "too_short": too_short,
        "lost_bytes": tokenizer.lost_bytes,
    }


class Sentences(NamedTuple):
    """The sentences of a piece that have a token.

    Args:
        ids: of all, end to end.
        ends: where each ends among them.
        word_starts: whether each token is the first of its word.
    """

    ids: NDArray[np.integer]
    ends: NDArray[np.int64]
    word_starts: NDArray[np.bool_]


def _tokenised(
    tokenizer: MeasuredTokenizer,
    dtype: type[np.unsignedinteger],
    continues: NDArray[np.bool_] | None,
    group: list[Piece],
) -> tuple[list[Sentences], dict[str, Any]]:
    """Give the sentences of each piece, and the tokenizer's counts."""
    tokenizer = tokenizer.apart()
    split = [split_sentences(piece.text) for piece in group]
    encodings = iter(tokenizer.encode([s for sentences in split for s in sentences], with_words=continues is None))
    found = []
    for sentences in split:
        some = list(islice(encodings, len(sentences)))
        ids, ends = end_to_end([row for encoding in some if (row := encoding.ids)], dtype)
        if continues is None:
            starts = np.array([begins for encoding in some for begins in _word_starts(encoding)], np.bool_)
        else:
            starts = ~continues[ids]
        found.append(Sentences(ids, ends, starts))
    return found, tokenizer.counts


def _continues_words(tokenizer: Tokenizer) -> NDArray[np.bool_] | None:
    """Tell of each id whether it goes on with a word; None where that shows in a text alone."""
    model = json.loads(tokenizer.to_str())
    # which leaves no word that begins with two number signs
    if model["model"]["type"] != "WordPiece" or (model["pre_tokenizer"] or {}).get("type") != "BertPreTokenizer":
        return None
    continues = np.zeros(vocabulary_size(tokenizer), np.bool_)
    prefix = model["model"]["continuing_subword_prefix"]
    continues[[i for token, i in model["model"]["vocab"].items() if token.startswith(prefix)]] = True
    return continues


def _word_starts(encoding: Encoding) -> list[bool]:
    """Mark the first token of each word of the tokenizer's, whatever marks its vocabulary uses."""
    words = encoding.word_ids
    return [word is None or word != before for before, word in zip([None, *words], words, strict=False)]


def read_sentences(folder: Path, split: str) -> SentenceTokens:
    """Memory-map what :func:`write_sentences` wrote."""
    rows = open_rows(folder, f"{split}.tokens")
    word_starts, documents = (open_array(folder, f"{split}.{part}") for part in ("word_starts", "documents"))
    return SentenceTokens(rows.values, word_starts, rows.starts, documents)


class Pairs(NamedTuple):
    """Two segments each as positions in ``tokens``, and whether the second follows the first in its document.

    Args:
        starts: (pairs, 2), the first token of each segment.
        ends: (pairs, 2), the one after its last.
        is_next: (pairs,).
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    is_next: NDArray[np.bool_]


class SentencePairs:
    """The pairs of an epoch, each drawn by its index alone.

    A pair is cut at a *boundary*, where one sentence of a document ends and the next begins. A is what stands before
    it; B is what stands after it or, as often, what stands after a boundary of another document. Nothing but the
    relation of A and B can tell which: both boundaries are drawn before the coin is thrown, and B is as long as the
    shorter of its two candidates, so that all lengths are the same under both outcomes; no B begins a document, no A
    ends one, and each B ends where the room ends.

    The epoch has as many pairs as it takes to read the corpus about once, their boundaries spread evenly over it, and
    each epoch draws new boundaries.

    Args:
        data: the documents.
        room: tokens of a pair at most, without the special ones.
        short_share: fraction of the pairs that are shorter, of any length, so that the fine-tuned model has seen some
            (0.1 in the paper).
    """

    def __init__(self, data: SentenceTokens, room: int, short_share: float = 0.1) -> None:
        self.data, self.room, self.short_share = data, room, short_share
        # document i has the boundaries from boundary_of[i] to boundary_of[i + 1]: one fewer than it has sentences
        self.boundary_of = data.documents - np.arange(len(data.documents))
        self.boundaries = int(self.boundary_of[-1])
        self.token_of = data.sentences[data.documents]
        with_pairs = np.diff(self.boundary_of) > 0
        if with_pairs.sum() < 2:
            raise ValueError("fewer than two documents have two sentences")
        needed = np.ceil(np.diff(self.token_of)[with_pairs] / room).sum()
        self.count = int(min(needed, self.boundaries))

    def __len__(self) -> int:
        return self.count

    def draw(self, indices: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Pairs:
        """Draw pairs of an epoch.

        Args:
            indices: (pairs,), of the epoch.
            uniforms: (pairs, DRAWS), random numbers from [0, 1): all that there is of chance.
        """
        for_here, for_there, for_short, for_room, for_split, for_next = uniforms.T
        low, high = indices * self.boundaries // self.count, (indices + 1) * self.boundaries // self.count
        here = low + _scaled(for_here, high - low)
        document = self._documents(here)
        # a boundary of any other document, all equally likely
        begin, n_own = self.boundary_of[document], self.boundary_of[document + 1] - self.boundary_of[document]
        there = _scaled(for_there, self.boundaries - n_own)
        there += np.where(there < begin, 0, n_own)
        other = self._documents(there)
        room = np.where(for_short < self.short_share, 2 + _scaled(for_room, self.room - 1), self.room)
        # the length of A is spread about the half, since a segment of a few words tells nothing of what follows it
        split = np.clip(np.rint(room * (0.25 + 0.5 * for_split)).astype(np.int64), 1, room - 1)
        # a boundary stands before the token that its second sentence begins with
        end_of_first = self.data.sentences[here + document + 1]
        alternative = self.data.sentences[there + other + 1]
        start_of_first = np.maximum(end_of_first - split, self.token_of[document])
        after = np.minimum(self.token_of[document + 1] - end_of_first, self.token_of[other + 1] - alternative)
        is_next = for_next < 0.5
        second = np.where(is_next, end_of_first, alternative)
        # what A leaves free at the beginning of a document is B's
        length = np.minimum(room - (end_of_first - start_of_first), after)
        return Pairs(np.stack([start_of_first, second], 1), np.stack([end_of_first, second + length], 1), is_next)

    def _documents(self, boundaries: NDArray[np.int64]) -> NDArray[np.int64]:
        """Find the documents that boundaries stand in."""
        return np.searchsorted(self.boundary_of, boundaries, side="right") - 1


def _scaled(uniforms: NDArray[np.float64], n: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Make whole numbers from 0 to below ``n`` of numbers from [0, 1)."""
    return (uniforms * n).astype(np.int64)
