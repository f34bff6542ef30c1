"""Data for translation: pairs of sentences, in batches of about as many tokens each."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from src.atomic import write_text
from src.coverage import MeasuredTokenizer
from src.data.baselines import MOST_TOKENS, Targets, extent
from src.data.batch_samplers import ResumableBatchSampler, TokenBatchSampler
from src.data.datamodule import TOKENIZER, TextDataModule, check_coverage
from src.data.journal import once
from src.data.malformed import Malformed
from src.data.pair_encoder import PairEncoder
from src.data.parallel import EMBEDDED, Pair, Pairs, ParallelCorpus
from src.data.progress import with_progress, working
from src.data.store import IGNORED, BatchedRows, Key, Rows, RowWriter, open_rows, token_dtype
from src.data.texts import grouped
from src.data.workers import in_parallel
from src.errors import InputError
from src.tokenization import END_OF_TEXT, make_tokenizer, require_token, tokenizer_text, vocabulary_size

TOKENIZER_PAIRS = 1_000_000  # a vocabulary does not get better with more
SOURCE_TOKENIZER = "source_tokenizer.json"
SIDES = ("source", "target")


class TranslationPairs(BatchedRows):
    """The pairs of a split by (epoch, index); index -1 is a row without targets.

    Args:
        source: the ids of the sources.
        target: the ids of the targets.
        start_id: what the decoder reads before the target.
        source_end: ends each source, and fills rows up behind it.
    """

    def __init__(self, source: Rows, target: Rows, start_id: int, source_end: int) -> None:
        self.source, self.target, self.start_id, self.source_end = source, target, start_id, source_end
        self.lengths = np.stack([np.diff(source.starts), np.diff(target.starts)], 1)  # (pairs, 2)

    def __len__(self) -> int:
        return len(self.source)

    def targets(self, most: int) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """Give what the decoder reads before each target token, and the token; the first ``most`` of the split."""
        ids = self.target.values[:most]
        contexts = np.concatenate([ids[:1], ids[:-1]])
        starts = self.target.starts[:-1]
        contexts[starts[starts < len(ids)]] = self.start_id
        return contexts, ids

    def __getitems__(self, keys: list[Key]) -> dict[str, Tensor]:
        """Give a batch, padded on the right to its longest rows: S tokens of the sources, T of the targets.

        Returns:
            ``input_ids`` and ``attention_mask`` (batch, S), ``decoder_input_ids`` and ``labels`` (batch, T), and
            ``index`` (batch,), the position of each pair in its split.
        """
        indices = [index for _, index in keys]
        nothing = np.zeros(0, np.int64)
        # a source without a token would leave attention nothing to see
        sources = [self.source[i] if i >= 0 else np.array([self.source_end]) for i in indices]
        targets = [self.target[i] if i >= 0 else nothing for i in indices]
        labels = _padded(targets, IGNORED)
        before = [np.concatenate([[self.start_id], target[:-1]]) for target in targets]
        return {
            "input_ids": _padded(sources, self.source_end),
            "attention_mask": _padded([np.ones_like(source) for source in sources], 0),
            "decoder_input_ids": _padded(before, self.start_id),
            "labels": labels if labels.shape[1] else torch.full((len(keys), 1), IGNORED),
            "index": torch.tensor(indices),
        }


def _padded(rows: list[NDArray[np.integer]], fill: int) -> Tensor:
    """Stack rows, filled up on the right: (batch, longest)."""
    padded = np.full((len(rows), max(map(len, rows))), fill, np.int64)
    for line, row in zip(padded, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(padded)


class TranslationDataModule(TextDataModule):
    """Pairs of sentences, each side with an end token behind it.

    Args:
        source: ``catalogues`` (English and French messages of programs, fetched by pip), a table with a column a
            language, a folder, or a hub dataset: see :class:`src.data.parallel.ParallelCorpus`, for this and the next.
        source_language: what is translated.
        target_language: into what.
        name: configuration of a hub dataset.
        revision: of a hub dataset.
        splits: what ``train``, ``validation`` and ``test`` are called by the source.
        max_pairs: read no more training pairs than this.
        tokenizer: ``bpe``, ``unigram``, ``char``, ``byte``, or the path of a tokenizer.json; of the target, and of the
            source too unless that has its own.
        source_tokenizer: of the source; as ``tokenizer`` if None.
        tokenizer_vocab_size: of each trained vocabulary.
        joint_vocabulary: whether one tokenizer, trained on both languages, serves both.
        end_token: that a given tokenizer.json has; the trained ones have their own.
        start_token: what the decoder reads first; the end token, as in the original, if None.
        begin_token: what each source and each target begins with, as in BART; nothing if None.
        max_length: tokens of a training pair's longer side at most, with the end token; pairs above it are left out. In
            validation and test, what is beyond it is cut off.
        max_ratio: training pairs with a side more than so many times as long as the other are left out.
        max_tokens: of a batch, on each side and rank, padding included.
        eval_max_tokens: the same for validation and test; ``max_tokens`` if None.
    """

    can_be_shared = True

    def __init__(
        self,
        *,
        source: str = EMBEDDED,
        source_language: str = "en",
        target_language: str = "fr",
        name: str | None = None,
        revision: str | None = None,
        splits: dict[str, str] | None = None,
        max_pairs: int | None = None,
        tokenizer: str = "bpe",
        source_tokenizer: str | None = None,
        tokenizer_vocab_size: int = 8000,
        joint_vocabulary: bool = False,
        end_token: str = END_OF_TEXT,
        start_token: str | None = None,
        begin_token: str | None = None,
        max_length: int = 128,
        max_ratio: float = 4.0,
        max_tokens: int = 4096,
        eval_max_tokens: int | None = None,
        **kwargs: Any,
    ) -> None:
        for option, value in {"max_tokens": max_tokens, "eval_max_tokens": eval_max_tokens or max_tokens}.items():
            if value < max_length:
                raise InputError(f"{option} is {value}: a batch must hold at least one pair of max_length {max_length}")
        if max_length < 2 or max_ratio < 1:
            raise InputError(f"max_length {max_length} or max_ratio {max_ratio} leaves no pair: 2 and 1 at least")
        if joint_vocabulary and source_tokenizer is not None:
            raise InputError("a source_tokenizer beside joint_vocabulary: one vocabulary has one tokenizer")
        super().__init__(batch_size=max_tokens, eval_batch_size=eval_max_tokens, **kwargs)
        self.corpus = ParallelCorpus(
            source,
            source_language,
            target_language,
            name,
            revision,
            splits,
            self.validation_fraction,
            self.test_fraction,
            max_pairs,
            self.reading,
        )
        self.label = source
        self.tokenizer_kinds = (source_tokenizer or tokenizer, tokenizer)
        self.tokenizer_vocab_size, self.joint_vocabulary = tokenizer_vocab_size, joint_vocabulary
        self.end_token, self.start_token, self.begin_token = end_token, start_token or end_token, begin_token
        self.max_length, self.max_ratio = max_length, max_ratio

    @property
    def special_tokens(self) -> dict[str, str]:
        begin = {} if self.begin_token is None else dict.fromkeys(("bos_token", "forced_bos_token"), self.begin_token)
        return {"eos_token": self.end_token, "decoder_start_token": self.start_token, **begin}

    @cached_property
    def source_tokenizer(self) -> Tokenizer:
        """The tokenizer of the source; that of the target where the vocabulary is joint."""
        return Tokenizer.from_file(str(self.prepared(SOURCE_TOKENIZER)))

    @property
    def source_vocab_size(self) -> int:
        """How many tokens the source has."""
        return vocabulary_size(self.source_tokenizer)

    @property
    def start_id(self) -> int:
        """What the decoder reads first."""
        return require_token(self.tokenizer, self.start_token, "start_token")

    @property
    def end_id(self) -> int:
        """What ends a target."""
        return require_token(self.tokenizer, self.end_token, "end_token")

    @property
    def first_id(self) -> int | None:
        """What each target begins with, if that is always the same."""
        return None if self.begin_token is None else require_token(self.tokenizer, self.begin_token, "begin_token")

    # ---- preparing

    def cache_key(self) -> dict[str, Any]:
        given = [tokenizer_text(kind) for kind in self.tokenizer_kinds]
        shape = [self.tokenizer_kinds, given, self.tokenizer_vocab_size, self.joint_vocabulary]
        tokens = [self.end_token, self.start_token, self.max_length, self.max_ratio]
        tokens += [] if self.begin_token is None else [self.begin_token]
        return {"corpus": self.corpus.fingerprint(), "tokenizer": shape, "pairs": tokens}

    def write_cache(self, folder: Path) -> dict[str, dict[str, int]]:
        splits = self.corpus.load(self.cache_dir)
        files = [folder / name for name in (SOURCE_TOKENIZER, TOKENIZER)]
        if not all(file.is_file() for file in files):  # else of a process that was killed
            for tokenizer, file in zip(self._make_tokenizers(splits["train"]), files, strict=True):
                write_text(file, tokenizer.to_str(pretty=True))
        tokenizers = [Tokenizer.from_file(str(file)) for file in files]
        infos = {
            split: once(folder, split, partial(self._write_split, folder, split, pairs, tokenizers))
            for split, pairs in splits.items()
        }
        for split, info in infos.items():
            if not info["pairs"] and self.part is None:
                reasons = ", ".join(f"{n} {what}" for what, n in info.items() if n) or "it is empty"
                raise InputError(f"the {split} split of {self.label} has no pair: {reasons}")
        return infos

    def _write_split(
        self, folder: Path, split: str, pairs: Pairs, tokenizers: Sequence[Tokenizer]
    ) -> tuple[dict[str, int], list[str]]:
        ends = [require_token(tokenizer, self.end_token, "end_token") for tokenizer in tokenizers]
        begin = self.begin_token
        begins = [[] if begin is None else [require_token(each, begin, "begin_token")] for each in tokenizers]
        malformed = Malformed(f"the {split} split", self.reading)
        measured = [
            MeasuredTokenizer(tokenizer, f"the {side} side of the {split} split of {self.label}")
            for side, tokenizer in zip(SIDES, tokenizers, strict=True)
        ]
        dtypes = [token_dtype(tokenizer) for tokenizer in tokenizers]
        encoder = PairEncoder(measured, dtypes, begins, ends, self.max_length, self.max_ratio, split == "train")
        counts = self._write_pairs(folder, split, pairs, encoder, malformed)
        told = malformed.report()
        for name, side, kind in zip(SIDES, measured, self.tokenizer_kinds, strict=True):
            if lost := side.lost.total():
                counts[f"{name} characters not represented"] = lost
            told += check_coverage(side, kind)
        return counts, told

    def _write_pairs(
        self, folder: Path, split: str, pairs: Pairs, encoder: PairEncoder, malformed: Malformed
    ) -> dict[str, int]:
        """Write the ids and (but for training) the texts of a split; count pairs, tokens and what was left out."""
        pairs = pairs if self.part is None else pairs.part(self.part)
        counts: Counter[str] = Counter()
        shown = with_progress(pairs, f"tokenising {split} pairs", pairs.count)
        groups = grouped(shown, size=lambda pair: len(pair[0]) + len(pair[1]))
        n_read = 0
        with (
            RowWriter(folder, f"{split}.source", encoder.dtypes[0]) as source,
            RowWriter(folder, f"{split}.target", encoder.dtypes[1]) as target,
            (folder / texts_of(split)).open("w", encoding="utf-8") as texts,
        ):
            for group, encoded in in_parallel(encoder, groups):
                for side, ids, tokenizer, measured in zip(
                    (source, target), encoded.sides, encoder.tokenizers, encoded.counts, strict=True
                ):
                    side.extend(*ids)
                    tokenizer.add(measured)
                if not encoder.is_train:
                    texts.writelines(json.dumps(pair) + "\n" for pair in group)
                for i, reason in enumerate(encoded.reasons):
                    if reason is None:
                        continue
                    if not encoder.is_train:
                        counts["over-long, cut"] += reason == "over-long"
                        continue
                    counts[f"{reason}, left out"] += 1
                    if reason != "lopsided":  # which is a matter of taste
                        malformed.add(reason, f"pair {n_read + i + 1:,}", " | ".join(group[i]))
                n_read += len(group)
        held = {"pairs": len(source), "source tokens": source.values.length, "tokens": target.values.length}
        return {**held, **{what: n for what, n in counts.items() if n}}

    def _make_tokenizers(self, pairs: Pairs) -> tuple[Tokenizer, Tokenizer]:
        """Make that of the source and that of the target."""

        def texts(*sides: int) -> Iterator[str]:
            some, total = islice(pairs, TOKENIZER_PAIRS), min(pairs.count, TOKENIZER_PAIRS)
            shown = with_progress(some, "reading pairs for the tokenizer", total)
            return (pair[side] for pair in shown for side in sides)

        source_kind, target_kind = self.tokenizer_kinds
        with working("making the tokenizer"):  # a vocabulary is chosen when all texts are read
            if self.joint_vocabulary:
                source = target = make_tokenizer(target_kind, self.tokenizer_vocab_size, texts(0, 1))
            else:
                source = make_tokenizer(source_kind, self.tokenizer_vocab_size, texts(0))
                target = make_tokenizer(target_kind, self.tokenizer_vocab_size, texts(1))
        require_token(target, self.start_token, "start_token")
        return source, target

    # ---- loading

    def open_split(self, split: str) -> TranslationPairs:
        source, target = (open_rows(self.folder, f"{split}.{side}") for side in SIDES)
        source_end = require_token(self.source_tokenizer, self.end_token, "end_token")
        return TranslationPairs(source, target, self.start_id, source_end)

    def batch_sampler(self, rows: TranslationPairs, *, train: bool) -> ResumableBatchSampler:
        """Fill batches up to a number of tokens, shuffled for training."""
        max_tokens = self.batch_size if train else self.eval_batch_size
        return TokenBatchSampler(rows.lengths, max_tokens, seed=self.seed, shuffle=train, **self._ranks())

    def targets(self, split: str) -> Targets:
        """Give the target tokens of a split, each with what the decoder reads before it; no more than counts fast."""
        contexts, ids = self.dataset(split).targets(MOST_TOKENS)
        return Targets(ids, contexts, extent(MOST_TOKENS, self.info[split]["tokens"], f"{split} tokens"))

    def texts(self, split: str) -> list[Pair]:
        """Read the sources and references of ``validation`` or ``test``, as they were written."""
        with self.prepared(texts_of(split)).open(encoding="utf-8") as lines:
            return [(source, target) for source, target in map(json.loads, lines)]


def texts_of(split: str) -> str:
    """Name the file that holds the pairs of a split as they were written, one a line."""
    return f"{split}.texts.jsonl"
