"""Data for translation: pairs of sentences, in batches of about as many tokens each."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch.utils.data import Dataset

from src.coverage import MeasuredTokenizer
from src.data.baselines import MOST_TOKENS, Targets, extent
from src.data.datamodule import TextDataModule
from src.data.malformed import Malformed, Reading
from src.data.pair_store import SIDES, Filter, PairTokenizers, TranslationPairs, pairs_are_complete, write_pairs
from src.data.parallel import EMBEDDED, Pair, Pairs, ParallelCorpus
from src.data.progress import announce
from src.data.sampling import ResumableBatchSampler
from src.data.token_budget import TokenBatchSampler
from src.errors import InputError
from src.tokenization import END_OF_TEXT, make_tokenizer, require_token, tokenizer_text, vocabulary_size

FORMAT = 2  # of the cache; counted up when what is written changes
TOKENIZER_PAIRS = 1_000_000  # a vocabulary does not get better with more


class TranslationDataModule(TextDataModule):
    """Pairs of sentences, each side with an end token behind it.

    Args:
        source: ``catalogues`` (English and French messages of programs, fetched by pip), a folder, or a hub dataset:
            see :class:`src.data.parallel.ParallelCorpus`, for this and the next ones.
        source_language: what is translated.
        target_language: into what.
        name: configuration of a hub dataset.
        revision: of a hub dataset.
        splits: what ``train``, ``validation`` and ``test`` are called by the source.
        validation_fraction: share of the training pairs for validation, where the source has no such split.
        test_fraction: the same for testing.
        max_pairs: read no more training pairs than this.
        strict: refuse malformed training pairs (not UTF-8, no JSON, empty, over-long) instead of leaving them out.
        max_malformed: share of the rows of a file that may be left out as malformed; more are refused.
        delimiter: between the fields of a table; by its ending and its header if null.
        encoding: of texts, tables and JSON, such as ``cp1252``; UTF-8 if null, or what a table is without doubt.
        tokenizer: ``bpe``, ``unigram``, ``char``, ``byte``, or the path of a tokenizer.json; of the target, and of the
            source too unless that has its own.
        source_tokenizer: of the source; as ``tokenizer`` if null.
        tokenizer_vocab_size: of each trained vocabulary.
        joint_vocabulary: whether one tokenizer, trained on both languages, serves both.
        end_token: that a given tokenizer.json has; the trained ones have their own.
        start_token: what the decoder reads first; the end token, as in the original, if null.
        max_length: tokens of a training pair's longer side at most, with the end token; pairs above it are left out. In
            validation and test, what is beyond it is cut off.
        max_ratio: training pairs with a side more than so many times as long as the other are left out.
        max_tokens: of a batch, on each side and rank, padding included.
        eval_max_tokens: the same for validation and test; ``max_tokens`` if null.
        num_workers: processes that load training batches; 0 loads them in the main process.
        seed: of the order of the pairs; the run's seed.
        cache_dir: where prepared data lie.

    Raises:
        InputError: a number that cannot be, or a source that cannot be read, before any training.
    """

    def __init__(
        self,
        source: str = EMBEDDED,
        source_language: str = "en",
        target_language: str = "fr",
        name: str | None = None,
        revision: str | None = None,
        splits: dict[str, str] | None = None,
        validation_fraction: float = 0.05,
        test_fraction: float = 0.05,
        max_pairs: int | None = None,
        strict: bool = False,
        max_malformed: float = 0.05,
        delimiter: str | None = None,
        encoding: str | None = None,
        tokenizer: str = "bpe",
        source_tokenizer: str | None = None,
        tokenizer_vocab_size: int = 8000,
        joint_vocabulary: bool = False,
        end_token: str = END_OF_TEXT,
        start_token: str | None = None,
        max_length: int = 128,
        max_ratio: float = 4.0,
        max_tokens: int = 4096,
        eval_max_tokens: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str = ".cache",
    ) -> None:
        for option, value in {"max_tokens": max_tokens, "eval_max_tokens": eval_max_tokens or max_tokens}.items():
            if value < max_length:
                raise InputError(f"{option} is {value}: a batch must hold at least one pair of max_length {max_length}")
        if max_length < 2 or max_ratio < 1:
            raise InputError(f"max_length {max_length} or max_ratio {max_ratio} leaves no pair: 2 and 1 at least")
        if joint_vocabulary and source_tokenizer is not None:
            raise InputError("a source_tokenizer beside joint_vocabulary: one vocabulary has one tokenizer")
        super().__init__(max_tokens, eval_max_tokens, num_workers, seed, cache_dir)
        self.corpus = ParallelCorpus(
            source,
            source_language,
            target_language,
            name,
            revision,
            splits,
            validation_fraction,
            test_fraction,
            max_pairs,
            Reading(strict, max_malformed, delimiter, encoding),
        )
        self.tokenizer_kinds = (source_tokenizer or tokenizer, tokenizer)
        self.tokenizer_vocab_size, self.joint_vocabulary = tokenizer_vocab_size, joint_vocabulary
        self.end_token, self.start_token = end_token, start_token or end_token
        self.filter = Filter(max_length, max_ratio)
        self._source_tokenizer: Tokenizer | None = None
        self._info: dict[str, dict[str, Any]] = {}

    @property
    def special_tokens(self) -> dict[str, str]:
        return {"eos_token": self.end_token, "decoder_start_token": self.start_token}

    @property
    def source_tokenizer(self) -> Tokenizer:
        """The tokenizer of the source; that of the target where the vocabulary is joint."""
        if self._source_tokenizer is None:
            self._source_tokenizer = Tokenizer.from_file(str(self.folder / "source_tokenizer.json"))
        return self._source_tokenizer

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

    # ---- preparing

    descriptions = ("tokenizer.json", "source_tokenizer.json", "info.json")

    def cache_key(self) -> dict[str, Any]:
        given = [tokenizer_text(kind) for kind in self.tokenizer_kinds]
        shape = [self.tokenizer_kinds, given, self.tokenizer_vocab_size, self.joint_vocabulary]
        tokens = [self.end_token, self.start_token, self.filter.max_length, self.filter.max_ratio]
        return {"format": FORMAT, "corpus": self.corpus.fingerprint(), "tokenizer": shape, "pairs": tokens}

    def write_cache(self, folder: Path) -> None:
        announce(f"preparing {self.corpus.source} in {self.cache_dir} (once)")
        splits = self.corpus.load(self.cache_dir)
        source, target = self._tokenizers(splits["train"])
        source.save(str(folder / "source_tokenizer.json"))
        target.save(str(folder / "tokenizer.json"))
        ends = [require_token(tokenizer, self.end_token, "end_token") for tokenizer in (source, target)]
        infos = {}
        for split, pairs in splits.items():
            malformed = Malformed(f"the {split} split", self.corpus.reading)
            measured = [
                MeasuredTokenizer(tokenizer, f"the {side} side of the {split} split of {self.corpus.source}")
                for side, tokenizer in zip(SIDES, (source, target), strict=True)
            ]
            tokenizers = PairTokenizers(measured[0], measured[1], *ends)
            infos[split] = write_pairs(folder, split, pairs, tokenizers, self.filter, malformed)
            malformed.announce()
            for tokenizer, kind in zip(measured, self.tokenizer_kinds, strict=True):
                self.check_coverage(tokenizer, kind)
        for split, info in infos.items():
            if not info["target"]["documents"]:
                reasons = ", ".join(f"{n} {what}" for what, n in info["counts"].items()) or "it is empty"
                raise InputError(f"the {split} split of {self.corpus.source} has no pair: {reasons}")
        (folder / "info.json").write_text(json.dumps(infos), encoding="utf-8")

    def _tokenizers(self, pairs: Pairs) -> tuple[Tokenizer, Tokenizer]:
        """Of the source and of the target."""

        def texts(*sides: int) -> Iterator[str]:
            return (pair[side] for pair in islice(pairs, TOKENIZER_PAIRS) for side in sides)

        source_kind, target_kind = self.tokenizer_kinds
        if self.joint_vocabulary:
            source = target = make_tokenizer(target_kind, self.tokenizer_vocab_size, texts(0, 1))
        else:
            source = make_tokenizer(source_kind, self.tokenizer_vocab_size, texts(0))
            target = make_tokenizer(target_kind, self.tokenizer_vocab_size, texts(1))
        require_token(target, self.start_token, "start_token")
        return source, target

    def cache_is_complete(self, folder: Path) -> bool:
        try:
            infos = json.loads((folder / "info.json").read_text(encoding="utf-8"))
            for name in ("tokenizer.json", "source_tokenizer.json"):
                Tokenizer.from_file(str(folder / name))
            return all(pairs_are_complete(folder, split, info) for split, info in infos.items())
        except Exception:  # whatever is wrong with it, it is made again
            return False

    @property
    def info(self) -> dict[str, dict[str, Any]]:
        """What each split holds."""
        if not self._info:
            self._info = json.loads((self.folder / "info.json").read_text(encoding="utf-8"))
        return self._info

    def summary(self) -> dict[str, dict[str, int]]:
        """Counts of each split, for people: what was left out or cut among them."""
        return {
            split: {
                "pairs": info["source"]["documents"],
                **{f"{side} tokens" if side == "source" else "tokens": info[side]["tokens"] for side in SIDES},
                **info["counts"],
            }
            for split, info in self.info.items()
        }

    # ---- loading

    def setup(self, stage: str) -> None:
        """Refuse splits that are missing before anything is trained."""
        for split in {"fit": ("train", "validation"), "validate": ("validation",)}.get(stage, ("test",)):
            self.dataset(split)

    def dataset(self, split: str) -> TranslationPairs:
        if split not in self.info:
            raise InputError(f"{self.corpus.source} has no {split} split: set {split}_fraction above 0")
        source_end = require_token(self.source_tokenizer, self.end_token, "end_token")
        return TranslationPairs(self.folder, split, self.start_id, source_end)

    def batch_sampler(self, rows: Dataset[Any], *, train: bool) -> ResumableBatchSampler:
        """Batches of a number of tokens, shuffled for training."""
        assert isinstance(rows, TranslationPairs)
        max_tokens = self.batch_size if train else self.eval_batch_size
        return TokenBatchSampler(rows.lengths, max_tokens, seed=self.seed, shuffle=train, **self._ranks())

    def targets(self, split: str) -> Targets:
        """The target tokens of a split, each with what the decoder reads before it; no more than is counted fast."""
        contexts, ids = self.dataset(split).targets(MOST_TOKENS)
        return Targets(ids, contexts, extent(MOST_TOKENS, self.info[split]["target"]["tokens"], f"{split} tokens"))

    def texts(self, split: str) -> list[Pair]:
        """The sources and references of ``validation`` or ``test``, as they were written."""
        texts = json.loads((self.folder / f"{split}.texts.json").read_text(encoding="utf-8"))
        return [(source, target) for source, target in texts]
