"""Data for the pretraining of BERT and Longformer: masked words, and next sentences or long texts, over any text."""

from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from torch.utils.data import Dataset

from src.coverage import MeasuredTokenizer
from src.data.baselines import MOST_PAIRS, MOST_TOKENS, Targets, extent
from src.data.bucketing import BucketBatchSampler
from src.data.corpora import EMBEDDED, Corpus, documents
from src.data.datamodule import TextDataModule
from src.data.language_modeling import TOKENIZER_DOCUMENTS
from src.data.malformed import Malformed, Reading
from src.data.masked_documents import MaskedDocuments
from src.data.masked_pairs import MaskedPairs
from src.data.masked_rows import MaskedRows
from src.data.masking import Masking
from src.data.packing import PackedInfo, is_complete, read_info, write_info
from src.data.pairs import SentencePairs
from src.data.progress import announce
from src.data.sampling import ResumableBatchSampler
from src.data.sentence_store import read_sentences, write_sentences
from src.errors import InputError
from src.tokenization import bert_ids, bert_tokens, make_tokenizer, text_ids, tokenizer_text

FORMAT = 2  # of the cache; counted up when what is written changes


class MLMDataModule(TextDataModule):
    """Sentence pairs with masked words, out of documents of two sentences or more; or whole documents.

    Rows and masks are drawn anew each epoch, as a function of seed, epoch and index alone; those of validation and
    test are always the same.

    Args:
        source: ``wikipedia`` (106 articles that install with the project), files, a folder, or a hub dataset: see
            :class:`src.data.corpora.Corpus`, for this and the next ones.
        more_sources: further sources, whose documents are trained on as well.
        name: configuration of a hub dataset.
        revision: of a hub dataset.
        text_column: the column that holds the text.
        document_separator: what separates the documents of a text file; none for one document a file.
        validation_source: files for validation, read like ``source``.
        validation_fraction: share of the documents for validation, where the source has no such split.
        test_fraction: the same for testing; 0 for no test split.
        max_documents: read no more than this many.
        strict: refuse malformed rows (not UTF-8, no JSON, of a wrong type, null or empty) instead of leaving them out.
        max_malformed: share of the rows of a file that may be left out as malformed; more are refused.
        delimiter: between the fields of a table; by its ending and its header if null.
        encoding: of texts, tables and JSON, such as ``cp1252``; UTF-8 if null, or what a table is without doubt.
        tokenizer: ``wordpiece``, or the path of a tokenizer.json.
        tokenizer_vocab_size: of a trained ``wordpiece``.
        tokenizer_cased: whether a trained ``wordpiece`` keeps case and accents; if null, it does unless 99.5% of the
            letters are ASCII, as those of English are.
        seq_len: tokens of a row at most, [CLS] and [SEP] among them.
        next_sentence: whether rows are pairs, for next-sentence prediction; else they are whole documents, cut where
            they are longer than ``seq_len``.
        short_share: share of the pairs that are shorter, of any length.
        mask_rate: share of the tokens that is to be predicted.
        whole_words: whether all pieces of a word are masked together.
        batch_size: rows a batch, on each rank.
        eval_batch_size: the same for validation and test; ``batch_size`` if null.
        num_workers: processes that load training batches; 0 loads them in the main process.
        seed: of the order of the rows, of the rows themselves and of the masks; the run's seed.
        cache_dir: where prepared data lie.

    Raises:
        InputError: a number that cannot be, or a source that cannot be read, before any training.
    """

    def __init__(
        self,
        source: str = EMBEDDED,
        more_sources: list[str] | None = None,
        name: str | None = None,
        revision: str | None = None,
        text_column: str = "text",
        document_separator: str | None = None,
        validation_source: str | None = None,
        validation_fraction: float = 0.05,
        test_fraction: float = 0.05,
        max_documents: int | None = None,
        strict: bool = False,
        max_malformed: float = 0.05,
        delimiter: str | None = None,
        encoding: str | None = None,
        tokenizer: str = "wordpiece",
        tokenizer_vocab_size: int = 8192,
        tokenizer_cased: bool | None = None,
        seq_len: int = 128,
        next_sentence: bool = True,
        short_share: float = 0.1,
        mask_rate: float = 0.15,
        whole_words: bool = False,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str = ".cache",
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed, cache_dir)
        if seq_len < 5:
            raise InputError(f"seq_len is {seq_len}: a pair needs at least 5, three of them for [CLS] and both [SEP]")
        if not 0 < mask_rate < 1:
            raise InputError(f"mask_rate is {mask_rate}: it must be above 0 and below 1")
        if not 0 <= short_share <= 1:
            raise InputError(f"short_share is {short_share}: it must be between 0 and 1")
        reading = Reading(strict, max_malformed, delimiter, encoding)
        self.corpus = Corpus(
            source,
            name,
            revision,
            text_column,
            document_separator,
            validation_source,
            validation_fraction,
            test_fraction,
            max_documents,
            reading=reading,
        )
        whole = {"validation_fraction": 0.0, "test_fraction": 0.0, "reading": reading}
        self.more = [Corpus(more, **whole) for more in more_sources or []]  # type: ignore[arg-type]
        self.tokenizer_kind, self.tokenizer_vocab_size = tokenizer, tokenizer_vocab_size
        self.tokenizer_cased = tokenizer_cased
        self.seq_len, self.next_sentence, self.short_share = seq_len, next_sentence, short_share
        self.mask_rate, self.whole_words = mask_rate, whole_words
        self._info: dict[str, PackedInfo] = {}

    @property
    def special_tokens(self) -> dict[str, str]:
        return bert_tokens(self.tokenizer)

    def cache_key(self) -> dict[str, Any]:
        given = tokenizer_text(self.tokenizer_kind)
        shape = [self.tokenizer_kind, given, self.tokenizer_vocab_size, self.tokenizer_cased]
        corpora = [corpus.fingerprint() for corpus in (self.corpus, *self.more)]
        key = {"format": FORMAT, "corpora": corpora, "tokenizer": shape}
        return key if self.next_sentence else {**key, "least_sentences": 1}

    def write_cache(self, folder: Path) -> None:
        announce(f"preparing {', '.join(c.label for c in (self.corpus, *self.more))} in {self.cache_dir} (once)")
        splits = self.corpus.splits(self.cache_dir)
        training = [splits["train"], *(corpus.splits(self.cache_dir)["train"] for corpus in self.more)]
        # of each source its share, so that the vocabulary is of all
        some = [islice(documents(rows), TOKENIZER_DOCUMENTS // len(training)) for rows in training]
        tokenizer = make_tokenizer(self.tokenizer_kind, self.tokenizer_vocab_size, chain(*some), self.tokenizer_cased)
        bert_tokens(tokenizer)
        tokenizer.save(str(folder / "tokenizer.json"))
        infos: dict[str, PackedInfo] = {}
        for split, rows in splits.items():
            malformed = Malformed(f"the {split} split", self.corpus.reading)
            parts = training if split == "train" else [rows]
            texts = chain(*(documents(part, malformed) for part in parts))
            measured = MeasuredTokenizer(tokenizer, f"the {split} split of {self.corpus.label}")
            infos |= write_sentences(measured, texts, folder, split, 2 if self.next_sentence else 1)
            malformed.announce()
            self.check_coverage(measured, self.tokenizer_kind)
        write_info(folder / "info.json", infos)

    def cache_is_complete(self, folder: Path) -> bool:
        try:
            infos = read_info(folder / "info.json")
            Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception:  # whatever is wrong with it, it is made again
            return False
        return all(is_complete(folder / f"{name}.bin", info) for name, info in infos.items())

    @property
    def info(self) -> dict[str, PackedInfo]:
        """What each file of the cache holds."""
        if not self._info:
            self._info = read_info(self.folder / "info.json")
        return self._info

    def setup(self, stage: str) -> None:
        """Refuse splits that are missing or give no pairs before anything is trained."""
        for split in {"fit": ("train", "validation"), "validate": ("validation",)}.get(stage, ("test",)):
            self.dataset(split)

    def dataset(self, split: str) -> MaskedRows:
        if f"{split}.tokens" not in self.info:
            raise InputError(f"{self.corpus.source} has no {split} split: set {split}_fraction above 0")
        if not self.next_sentence and not self.info[f"{split}.tokens"].tokens:
            raise InputError(f"the {split} split of {self.corpus.source} has no document with any text")
        if self.next_sentence and self.info[f"{split}.tokens"].documents < 2:
            too_short = self.info[f"{split}.tokens"].too_short
            raise InputError(
                f"the {split} split of {self.corpus.source} has fewer than two documents of two sentences "
                f"({too_short:,} have fewer): next-sentence prediction needs a sentence that follows and one of "
                "another document; give longer or more documents, or a document_separator"
            )
        special = bert_ids(self.tokenizer)
        ordinary = np.setdiff1d(text_ids(self.tokenizer), list(special.values()))
        masking = Masking(special["mask_token"], ordinary, self.mask_rate, self.whole_words)
        seed = self.seed if split == "train" else None
        sentences = read_sentences(self.folder, split, self.info)
        if not self.next_sentence:
            return MaskedDocuments(sentences, self.seq_len - 2, masking, special, seed)
        return MaskedPairs(SentencePairs(sentences, self.seq_len - 3, self.short_share), masking, special, seed)

    def batch_sampler(self, rows: Dataset[Any], *, train: bool) -> ResumableBatchSampler:
        """Batches by length for training, batches in order for evaluation."""
        assert isinstance(rows, MaskedRows)
        if not train:
            return super().batch_sampler(rows, train=False)
        return BucketBatchSampler(len(rows), self.batch_size, rows.length, seed=self.seed, **self._ranks())

    def targets(self, split: str) -> Targets:
        """The tokens of a split that may be masked, each as likely as any other; no more than is counted fast."""
        tokens = read_sentences(self.folder, split, self.info).tokens
        part = extent(MOST_TOKENS, len(tokens), f"{split} tokens")
        first = tokens[:MOST_TOKENS]
        return Targets(first[~np.isin(first, list(bert_ids(self.tokenizer).values()))], extent=part)

    def next_sentence_targets(self, split: str) -> Targets:
        """The labels of the pairs of a split's first epoch, 1 where B does not follow A."""
        rows = self.dataset(split)
        assert isinstance(rows, MaskedPairs)
        return Targets(rows.labels(MOST_PAIRS), extent=extent(MOST_PAIRS, len(rows), f"{split} pairs"))

    def summary(self) -> dict[str, dict[str, int]]:
        """Counts of each split, for people."""
        splits = [name.removesuffix(".tokens") for name in self.info if name.endswith(".tokens")]
        return {split: self._counts(split) for split in splits}

    def _counts(self, split: str) -> dict[str, int]:
        info = self.info[f"{split}.tokens"]
        why = "documents of fewer than two sentences, left out" if self.next_sentence else "documents without any token"
        lost = {why: info.too_short, "bytes not represented": info.lost_bytes}
        return {
            "documents": info.documents,
            "sentences": self.info[f"{split}.sentences"].tokens - 1,
            "tokens": info.tokens,
            "pairs" if self.next_sentence else "rows": len(self.dataset(split)),
            **{what: n for what, n in lost.items() if n},
        }
