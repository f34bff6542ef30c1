"""Data for the pretraining of BERT and Longformer: masked words, and next sentences or long texts, over any text."""

from collections.abc import Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from src.coverage import MeasuredTokenizer
from src.data.baselines import MOST_PAIRS, MOST_TOKENS, Targets, extent
from src.data.batch_samplers import EpochBatchSampler
from src.data.corpora import Corpus, Pieces
from src.data.datamodule import TOKENIZER_DOCUMENTS, DocumentDataModule
from src.data.loader import TokenCountingLoader
from src.data.malformed import Malformed
from src.data.masking import MaskedDocuments, MaskedPairs, MaskedRows, Masking
from src.data.progress import with_progress
from src.data.sentences import SentencePairs, read_sentences, write_sentences
from src.data.unpadding import unpad
from src.errors import InputError
from src.files import counted
from src.tokenization import bert_ids, bert_tokens, text_ids


class MLMDataModule(DocumentDataModule):
    """Sentence pairs with masked words, out of documents of two sentences or more; or whole documents.

    Rows and masks are drawn anew each epoch, as a function of seed, epoch and index alone; those of validation and
    test are always the same.

    Args:
        more_sources: further sources, whose documents are trained on as well.
        tokenizer: ``wordpiece``, or the path of a tokenizer.json.
        seq_len: tokens of a row at most, [CLS] and [SEP] among them.
        next_sentence: whether rows are pairs, for next-sentence prediction; else they are whole documents, cut where
            they are longer than ``seq_len``.
        short_share: fraction of the pairs that are shorter, of any length.
        unpadded: whether the documents of a training batch are put end to end in place of being padded to the longest
            of them: each is read as if it stood alone, and no work is done on padding. Without next sentences.
        mask_rate: fraction of the tokens that is to be predicted.
        eval_mask_rate: the same for validation and test; ``mask_rate`` if None.
        whole_words: whether all pieces of a word are masked together.
    """

    can_be_shared = True

    def __init__(
        self,
        *,
        more_sources: list[str] | None = None,
        tokenizer: str = "wordpiece",
        seq_len: int = 128,
        next_sentence: bool = True,
        short_share: float = 0.1,
        unpadded: bool = False,
        mask_rate: float = 0.15,
        eval_mask_rate: float | None = None,
        whole_words: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer=tokenizer, **kwargs)
        if seq_len < 5:
            raise InputError(f"seq_len is {seq_len}: a pair needs at least 5, three of them for [CLS] and both [SEP]")
        for name, rate in (("mask_rate", mask_rate), ("eval_mask_rate", eval_mask_rate)):
            if rate is not None and not 0 < rate < 1:
                raise InputError(f"{name} is {rate}: it must be above 0 and below 1")
        if unpadded and next_sentence:
            raise InputError("unpadded is true: it goes with whole documents alone, set next_sentence to false")
        if not 0 <= short_share <= 1:
            raise InputError(f"short_share is {short_share}: it must be between 0 and 1")
        uncut = partial(Corpus, validation_fraction=0.0, test_fraction=0.0, reading=self.reading)
        self.corpora = [self.corpus, *map(uncut, more_sources or [])]
        self.label = ", ".join(corpus.label for corpus in self.corpora)
        self.seq_len, self.next_sentence, self.short_share = seq_len, next_sentence, short_share
        self.unpadded, self.whole_words = unpadded, whole_words
        self.mask_rate, self.eval_mask_rate = mask_rate, eval_mask_rate or mask_rate
        self.least_sentences = 2 if next_sentence else 1  # documents with fewer are left out

    @property
    def special_tokens(self) -> dict[str, str]:
        return bert_tokens(self.tokenizer)

    # ---- preparing

    def cache_key(self) -> dict[str, Any]:
        corpora = [corpus.fingerprint() for corpus in self.corpora]
        return {"corpora": corpora, "tokenizer": self.tokenizer_key(), "least_sentences": self.least_sentences}

    def write_cache(self, folder: Path) -> dict[str, dict[str, int]]:
        first, *others = (corpus.splits(self.cache_dir) for corpus in self.corpora)
        training = [splits["train"] for splits in (first, *others)]
        # as much of each source, so that the vocabulary is of all
        some = [islice(Pieces(rows), TOKENIZER_DOCUMENTS // len(training)) for rows in training]
        tokenizer = self.save_tokenizer(folder, chain(*some), sum(map(len, training)))
        bert_tokens(tokenizer)
        infos = {}
        for split, rows in first.items():
            parts = self.shared(*(training if split == "train" else [rows]))
            infos[split] = self.once(folder, split, tokenizer, partial(self._write_split, folder, split, parts))
        return infos

    def _write_split(
        self, folder: Path, split: str, parts: Sequence[Any], measured: MeasuredTokenizer, malformed: Malformed
    ) -> dict[str, int]:
        texts = chain(*(Pieces(part, malformed) for part in parts))
        pieces = with_progress(texts, f"tokenising {split} documents", sum(map(len, parts)))
        return write_sentences(measured, pieces, folder, split, self.least_sentences)

    # ---- loading

    def open_split(self, split: str) -> MaskedRows:
        counts = self.info[split]
        if not self.next_sentence and not counts["tokens"]:
            raise InputError(f"the {split} split of {self.label} has no document with any text")
        if self.next_sentence and counts["documents"] < 2:
            raise InputError(
                f"the {split} split of {self.label} has {counted(counts['documents'], 'documents')} of two sentences "
                "or more: next-sentence prediction needs two of them, for a sentence that follows and one of another "
                r"document; give longer or more documents, or what separates them by --data.document_separator '\n\n'"
            )
        special = bert_ids(self.tokenizer)
        ordinary = np.setdiff1d(text_ids(self.tokenizer), list(special.values()))
        seed, rate = (self.seed, self.mask_rate) if split == "train" else (None, self.eval_mask_rate)
        masking = Masking(special["mask_token"], ordinary, rate, self.whole_words)
        sentences = read_sentences(self.folder, split)
        if not self.next_sentence:
            return MaskedDocuments(sentences, self.seq_len, masking, special, seed)
        pairs = SentencePairs(sentences, self.seq_len - 3, self.short_share)
        return MaskedPairs(pairs, self.seq_len, masking, special, seed)

    def train_dataloader(self) -> TokenCountingLoader:
        if not self.unpadded:
            return super().train_dataloader()
        rows = self.dataset("train")
        # not by length: where nothing is padded, batches of like lengths would only differ in size
        sampler = EpochBatchSampler(len(rows), self.batch_size, seed=self.seed, shuffle=True, **self._ranks())
        micro_batches = getattr(self.trainer.strategy, "micro_batches", 1) if self.trainer else 1
        loader = self._loader(rows, batch_sampler=sampler, collate_fn=partial(unpad, rows=micro_batches))
        return self._counting(loader, sampler)

    # ---- counts

    def targets(self, split: str) -> Targets:
        """Give the tokens of a split that may be masked, each as likely as any other; no more than is counted fast."""
        tokens = self.dataset(split).data.tokens
        part = extent(MOST_TOKENS, len(tokens), f"{split} tokens")
        first = tokens[:MOST_TOKENS]
        return Targets(first[~np.isin(first, list(bert_ids(self.tokenizer).values()))], extent=part)

    def next_sentence_targets(self, split: str) -> Targets:
        """Give the labels of the pairs of a split's first epoch, 1 where B does not follow A."""
        rows = self.dataset(split)
        return Targets(rows.labels(MOST_PAIRS), extent=extent(MOST_PAIRS, len(rows), f"{split} pairs"))

    def summary(self) -> dict[str, dict[str, int]]:
        found = {}
        why = "documents of fewer than two sentences, left out" if self.next_sentence else "documents without any token"
        for split, info in self.info.items():
            lost = {why: info["too_short"], "bytes not represented": info["lost_bytes"]}
            found[split] = {
                **{what: info[what] for what in ("documents", "sentences", "tokens")},
                "pairs" if self.next_sentence else "rows": len(self.dataset(split)),
                **{what: n for what, n in lost.items() if n},
            }
        return found
