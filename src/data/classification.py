"""Data for sequence classification: texts, or pairs of texts, with a label each."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from src.atomic import write_text
from src.coverage import MeasuredTokenizer
from src.data import embedded
from src.data.baselines import Targets
from src.data.datamodule import TOKENIZER, TextDataModule
from src.data.journal import once
from src.data.malformed import Malformed, malformed_reason
from src.data.progress import with_progress, working
from src.data.sources import Parts, TableSource
from src.data.store import (
    IGNORED,
    ArrayWriter,
    BatchedRows,
    Key,
    Rows,
    RowWriter,
    end_to_end,
    open_array,
    open_rows,
    token_dtype,
)
from src.data.texts import grouped
from src.data.workers import in_parallel
from src.errors import InputError
from src.tokenization import bert_ids, bert_row, bert_tokens, load_tokenizer, pad_pairs, train_wordpiece

MOVIE_REVIEWS = "movie_reviews"
LABELS = "labels.json"
FEW = 20  # rows, of which each may have a label of its own
WORDPIECE = "wordpiece"

LabelledText = tuple[list[str], int]  # the one or two texts of a row, and the number of its label


@dataclass(frozen=True)
class LabelledTexts(Iterable[LabelledText]):
    """The rows of a split that have a text and a label, read anew at each iteration.

    Those without are counted and told. Refused are a label that the training rows do not have, a split
    without any row, and under ``strict`` also a row without text or label.
    """

    rows: Any
    source: "LabelledSource"
    split: str
    names: list[str]

    def __iter__(self) -> Iterator[LabelledText]:
        source, where = self.source, f"the {self.split} split of {self.source.source}"
        numbers = {name: i for i, name in enumerate(self.names)}
        coded = hasattr(self.rows.features[source.label_column], "names")
        malformed, kept = Malformed(where, source.reading), 0
        for i, row in enumerate(self.rows, start=1):
            texts, label = [row[name] for name in source.texts], row[source.label_column]
            reason = malformed_reason([*texts, label if label is None else str(label)])
            if reason is not None:
                malformed.add(reason, f"row {i:,}")
                continue
            if not (coded or str(label) in numbers):
                raise InputError(
                    f"row {i} of {where} has the label {label!r}: the training rows have {', '.join(self.names[:20])}"
                )
            kept += 1
            yield texts, int(label) if coded else numbers[str(label)]
        malformed.announce()
        if not kept:
            raise InputError(f"{where} has no row with a text and a label")


@dataclass(frozen=True)
class LabelledSource(TableSource):
    """Labelled rows; see ``ClassificationDataModule`` for the arguments."""

    label_column: str = "label"

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.texts, self.label_column)

    def labelled(self, cache_dir: Path) -> tuple[dict[str, LabelledTexts], list[str]]:
        """Read the rows of each split, and the names of the labels in the order of their numbers.

        Refused is one label alone.
        """
        found = self.splits(cache_dir)
        names = self._label_names(found["train"])
        return {split: LabelledTexts(rows, self, split, names) for split, rows in found.items()}, names

    def load(self, cache_dir: Path) -> Parts:
        from datasets import Dataset

        if self.source == MOVIE_REVIEWS:
            return {"train": Dataset.from_dict(dict(zip(self.columns, embedded.reviews(), strict=True)))}
        return super().load(cache_dir)

    def labels(self, rows: Any) -> Iterable[str]:
        return map(str, rows[self.label_column])

    def _label_names(self, train: Any) -> list[str]:
        feature = train.features[self.label_column]
        if hasattr(feature, "names"):
            names = feature.names
        else:
            labels = {str(label) for label in train[self.label_column] if label is not None}
            names = sorted(label for label in labels if label.strip())
        column = f"column {self.label_column!r} of {self.source}"
        if len(names) < 2:
            raise InputError(f"{column} has the labels {names}: two are needed")
        if FEW < len(train) < 2 * len(names):
            raise InputError(f"{column} has {len(names):,} labels in {len(train):,} rows: name another label_column")
        return names


class LabelledRows(BatchedRows):
    """Rows ``[CLS] text [SEP]`` or ``[CLS] first [SEP] second [SEP]``, by (epoch, index); index -1 has no target.

    Args:
        rows: their ids.
        seconds: (rows,), where the second text of each begins; its length where there is none.
        labels: (rows,).
        seq_len: tokens of a row at most.
        special_ids: the ids of the special tokens, by HuggingFace's names for the tokens.
    """

    def __init__(
        self,
        rows: Rows,
        seconds: NDArray[np.int64],
        labels: NDArray[np.int64],
        seq_len: int,
        special_ids: dict[str, int],
    ) -> None:
        self.rows, self.seconds, self.labels = rows, seconds, labels
        self.seq_len, self.special_ids = seq_len, special_ids

    def __len__(self) -> int:
        return len(self.labels)

    def lengths(self, epoch: int, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count the tokens of rows."""
        return self.rows.starts[indices + 1] - self.rows.starts[indices]

    def __getitems__(self, keys: list[Key]) -> dict[str, Tensor]:
        """Give a batch: ``input_ids``, ``attention_mask``, ``token_type_ids``, (batch, seq); ``labels`` and ``index``.

        The last two are (batch,).
        """
        indices = [index for _, index in keys]
        filler = np.array([self.special_ids["cls_token"]]), 1
        rows = [(self.rows[i], int(self.seconds[i])) if i >= 0 else filler for i in indices]
        batch = {
            **pad_pairs(rows, self.special_ids["pad_token"], self.seq_len),
            "labels": np.array([self.labels[i] if i >= 0 else IGNORED for i in indices]),
            "index": np.array(indices),
        }
        return {name: torch.from_numpy(array) for name, array in batch.items()}


class ClassificationDataModule(TextDataModule):
    """Labelled texts, or labelled pairs of texts.

    Args:
        tokenizer: the path of a tokenizer.json with BERT's special tokens, that of the pretrained network's run; or
            ``wordpiece``, to train one on the training texts, for a network that is trained from scratch.
        tokenizer_vocab_size: of a trained tokenizer.
        tokenizer_cased: whether a trained one keeps case and accents; if None, it does unless the texts are English.
        source: ``movie_reviews`` (200 labelled sentences that install with the project), a .csv, .tsv, .json, .jsonl
            or .parquet file, or the name of a dataset on the HuggingFace hub.
        name: configuration of a hub dataset.
        text_column: the column that holds the text.
        second_text_column: the column of the second text, where rows are pairs.
        label_column: the column that holds the label, a word or a whole number.
        validation_fraction: fraction of the rows for validation, where the source has no such split. Rows of equal
            texts are in one split.
        test_fraction: the same for testing; 0 for no test split.
        seq_len: tokens a row at most, the special ones among them; longer ones are cut.
    """

    def __init__(
        self,
        *,
        tokenizer: str,
        tokenizer_vocab_size: int = 8192,
        tokenizer_cased: bool | None = None,
        source: str = MOVIE_REVIEWS,
        name: str | None = None,
        text_column: str = "text",
        second_text_column: str | None = None,
        label_column: str = "label",
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        seq_len: int = 128,
        **kwargs: Any,
    ) -> None:
        super().__init__(validation_fraction=validation_fraction, test_fraction=test_fraction, **kwargs)
        if seq_len < 5:
            raise InputError(f"seq_len is {seq_len}: it must be at least 5")
        texts = tuple(filter(None, (text_column, second_text_column)))
        fractions = validation_fraction, test_fraction
        self.source = LabelledSource(source, name, texts, *fractions, self.reading, label_column)
        self.label = source
        self.tokenizer_settings = tokenizer, tokenizer_vocab_size, tokenizer_cased
        self.seq_len = seq_len

    @property
    def special_tokens(self) -> dict[str, str]:
        return bert_tokens(self.tokenizer)

    def cache_key(self) -> dict[str, Any]:
        kind, *settings = self.tokenizer_settings
        given = settings if kind == WORDPIECE else load_tokenizer(kind).to_str()
        return {"source": self.source.fingerprint(), "tokenizer": given, "seq_len": self.seq_len}

    def write_cache(self, folder: Path) -> dict[str, dict[str, int]]:
        splits, names = self.source.labelled(self.cache_dir)
        path = folder / TOKENIZER
        if not path.is_file():  # else of a process that was killed
            write_text(path, self._make_tokenizer(splits["train"]).to_str(pretty=True))
        tokenizer = Tokenizer.from_file(str(path))
        (folder / LABELS).write_text(json.dumps(names), encoding="utf-8")
        return {
            split: {
                **once(folder, split, partial(self._write_split, folder, split, labelled, tokenizer)),
                "labels": len(names),
            }
            for split, labelled in splits.items()
        }

    def _write_split(
        self, folder: Path, split: str, labelled: LabelledTexts, tokenizer: Tokenizer
    ) -> tuple[dict[str, int], list[str]]:
        measured, dtype = MeasuredTokenizer(tokenizer, f"the {split} split of {self.label}"), token_dtype(tokenizer)
        rows = with_progress(labelled, f"tokenising {split} rows", len(labelled.rows))
        groups = grouped(rows, size=lambda row: sum(map(len, row[0])))
        with (
            RowWriter(folder, split, dtype) as ids_of_rows,
            ArrayWriter(folder / f"{split}.seconds.npy", np.int64) as seconds,
            ArrayWriter(folder / f"{split}.labels.npy", np.int64) as labels,
        ):
            for group, encoded in in_parallel(partial(_encoded, measured, dtype, self.seq_len), groups):
                ids_of_rows.extend(encoded.ids, encoded.ends)
                seconds.extend(encoded.seconds)
                labels.extend([label for _, label in group])
                measured.add(encoded.counts)
        counts = {"rows": len(ids_of_rows), "tokens": ids_of_rows.values.length}
        # told and not refused: a pretrained network cannot take another tokenizer than its own
        return counts, list(filter(None, [measured.losses()]))

    def _make_tokenizer(self, train: LabelledTexts) -> Tokenizer:
        kind, vocab_size, cased = self.tokenizer_settings
        if kind != WORDPIECE:
            return load_tokenizer(kind)
        rows = with_progress(train.rows, "reading texts for the tokenizer", len(train.rows))
        texts = (row[name] for row in rows for name in train.source.texts if row[name])
        with working("making the tokenizer"):  # a vocabulary is chosen when all texts are read
            return train_wordpiece(texts, vocab_size, cased)

    @property
    def label_names(self) -> list[str]:
        """The labels, in the order of their numbers."""
        return json.loads(self.prepared(LABELS).read_text(encoding="utf-8"))

    def texts(self, split: str) -> list[list[str]]:
        """Read the one or two texts of each row of a split, in order, from the source: tokens may have lost some."""
        splits, _ = self.source.labelled(self.cache_dir)
        return [texts for texts, _ in splits[split]]

    def open_split(self, split: str) -> LabelledRows:
        seconds, labels = (open_array(self.folder, f"{split}.{name}") for name in ("seconds", "labels"))
        return LabelledRows(open_rows(self.folder, split), seconds, labels, self.seq_len, bert_ids(self.tokenizer))

    def targets(self, split: str) -> Targets:
        """Give the labels of a split."""
        return Targets(self.dataset(split).labels)


class _Encoded(NamedTuple):
    """A group of rows.

    Args:
        ids: of all, end to end.
        ends: where each ends among them.
        seconds: where the second text of each begins in it.
        counts: the tokenizer's.
    """

    ids: NDArray[np.integer]
    ends: NDArray[np.int64]
    seconds: list[int]
    counts: dict[str, Any]


def _encoded(
    tokenizer: MeasuredTokenizer, dtype: type[np.unsignedinteger], seq_len: int, group: list[LabelledText]
) -> _Encoded:
    tokenizer, special = tokenizer.apart(), bert_ids(tokenizer.tokenizer)
    columns = [tokenizer.encode(column) for column in zip(*(texts for texts, _ in group), strict=True)]
    rows = [bert_row([part.ids for part in parts], seq_len, special) for parts in zip(*columns, strict=True)]
    ids, ends = end_to_end([row for row, _ in rows], dtype)
    return _Encoded(ids, ends, [second for _, second in rows], tokenizer.counts)
