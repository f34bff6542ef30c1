"""Data for sequence classification: texts, or pairs of texts, with a label each."""

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from src.coverage import MeasuredTokenizer
from src.data.baselines import Targets
from src.data.bucketing import BucketBatchSampler
from src.data.datamodule import TextDataModule
from src.data.labelled import MOVIE_REVIEWS, LabelledColumns, LabelledSource
from src.data.malformed import Reading
from src.data.packing import IGNORED, Key
from src.data.progress import announce
from src.data.sampling import ResumableBatchSampler
from src.errors import InputError
from src.tokenization import LENGTH_STEP, bert_ids, bert_row, bert_tokens, load_tokenizer

FORMAT = 1  # of the cache; counted up when what is written changes


class LabelledTokens(NamedTuple):
    """Tokenised rows end to end: where each begins and where its second text begins, and its label."""

    tokens: NDArray[np.int64]
    starts: NDArray[np.int64]  # (rows + 1,)
    seconds: NDArray[np.int64]  # (rows,), the end of the row where there is no second text
    labels: NDArray[np.int64]


class LabelledRows(Dataset[dict[str, Tensor]]):
    """Rows ``[CLS] text [SEP]`` or ``[CLS] first [SEP] second [SEP]``, by (epoch, index); index -1 has no target."""

    def __init__(self, rows: LabelledTokens, pad_id: int, cls_id: int) -> None:
        self.rows, self.pad_id, self.cls_id = rows, pad_id, cls_id

    def __len__(self) -> int:
        return len(self.rows.labels)

    def length(self, key: Key) -> int:
        """Tokens of a row."""
        return int(self.rows.starts[key[1] + 1] - self.rows.starts[key[1]])

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        return {name: rows[0] for name, rows in self.__getitems__([key]).items()}

    def __getitems__(self, keys: list[Key]) -> dict[str, Tensor]:
        """``input_ids``, ``attention_mask`` and ``token_type_ids``, (batch, seq) each; ``labels`` (batch,)."""
        indices = [index for _, index in keys]
        lengths = np.array([self.length(key) if key[1] >= 0 else 1 for key in keys])
        width = -(-lengths.max() // LENGTH_STEP) * LENGTH_STEP
        input_ids = np.full((len(keys), width), self.pad_id)
        segments = np.zeros_like(input_ids)
        for i, (index, length) in enumerate(zip(indices, lengths, strict=True)):
            start = self.rows.starts[max(index, 0)]
            input_ids[i, :length] = self.rows.tokens[start : start + length] if index >= 0 else self.cls_id
            segments[i, self.rows.seconds[index] - start : length] = index >= 0
        batch = {
            "input_ids": input_ids,
            "attention_mask": (np.arange(width) < lengths[:, None]).astype(np.int64),
            "token_type_ids": segments,
            "labels": np.array([self.rows.labels[index] if index >= 0 else IGNORED for index in indices]),
        }
        return {name: torch.from_numpy(rows) for name, rows in batch.items()}


def tokenize(tokenizer: MeasuredTokenizer, seq_len: int, columns: LabelledColumns) -> LabelledTokens:
    """Texts to tokens with the special ones, cut to ``seq_len``."""
    special = bert_ids(tokenizer.tokenizer)
    encodings = [
        [encoding.ids for encoding in tokenizer.encode(texts)]
        for texts in filter(None, (columns.firsts, columns.seconds))
    ]
    made = [bert_row(parts, seq_len, special) for parts in zip(*encodings, strict=True)]
    rows = [ids for ids, _ in made]
    starts = np.cumsum([0, *map(len, rows)])
    return LabelledTokens(
        np.array([token for row in rows for token in row]),
        starts,
        starts[:-1] + np.array([second for _, second in made]),
        np.array(columns.labels),
    )


class ClassificationDataModule(TextDataModule):
    """Labelled texts, or labelled pairs of texts.

    Args:
        tokenizer: the path of a tokenizer.json with BERT's special tokens: that of the pretrained network's run.
        source: ``movie_reviews`` (200 labelled sentences that install with the project), a .csv, .tsv, .json, .jsonl
            or .parquet file, or the name of a dataset on the HuggingFace hub.
        name: configuration of a hub dataset.
        text_column: the column that holds the text.
        second_text_column: the column of the second text, where rows are pairs.
        label_column: the column that holds the label, a word or a whole number.
        validation_fraction: share of the rows for validation, where the source has no such split.
        test_fraction: the same for testing; 0 for no test split.
        strict: refuse malformed rows (not UTF-8, of a wrong type, null or empty) instead of leaving them out.
        max_malformed: share of the rows of a file that may be left out as malformed; more are refused.
        delimiter: between the fields of a table; by its ending and its header if null.
        encoding: of texts, tables and JSON, such as ``cp1252``; UTF-8 if null, or what a table is without doubt.
        seq_len: tokens a row at most, the special ones among them; longer ones are cut.
        batch_size: rows a batch, on each rank.
        eval_batch_size: the same for validation and test; ``batch_size`` if null.
        num_workers: processes that load training batches; 0 loads them in the main process.
        seed: of the order of the rows; the run's seed.
        cache_dir: where prepared data lie.

    Raises:
        InputError: a number that cannot be, or a source that cannot be read, before any training.
    """

    def __init__(
        self,
        tokenizer: str,
        source: str = MOVIE_REVIEWS,
        name: str | None = None,
        text_column: str = "text",
        second_text_column: str | None = None,
        label_column: str = "label",
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        strict: bool = False,
        max_malformed: float = 0.05,
        delimiter: str | None = None,
        encoding: str | None = None,
        seq_len: int = 128,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str = ".cache",
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed, cache_dir)
        if seq_len < 5:
            raise InputError(f"seq_len is {seq_len}: it must be at least 5")
        columns = text_column, second_text_column, label_column
        reading = Reading(strict, max_malformed, delimiter, encoding)
        self.source = LabelledSource(source, name, *columns, validation_fraction, test_fraction, reading)
        self.tokenizer_path, self.seq_len = tokenizer, seq_len

    @property
    def special_tokens(self) -> dict[str, str]:
        return bert_tokens(self.tokenizer)

    def cache_key(self) -> dict[str, Any]:
        given = load_tokenizer(self.tokenizer_path).to_str()
        return {"format": FORMAT, "source": self.source.fingerprint(), "tokenizer": given, "seq_len": self.seq_len}

    descriptions = ("tokenizer.json", "labels.json", "checksums.json")

    def write_cache(self, folder: Path) -> None:
        announce(f"preparing {self.source.source} in {self.cache_dir} (once)")
        tokenizer = load_tokenizer(self.tokenizer_path)
        tokenizer.save(str(folder / "tokenizer.json"))
        splits, names = self.source.splits(self.cache_dir)
        (folder / "labels.json").write_text(json.dumps(names), encoding="utf-8")
        for split, columns in splits.items():
            measured = MeasuredTokenizer(tokenizer, f"the {split} split of {self.source.source}")
            np.savez(folder / f"{split}.npz", **tokenize(measured, self.seq_len, columns)._asdict())
            # told and not refused: a pretrained network cannot take another tokenizer than its own
            if losses := measured.losses():
                announce(losses)
        sums = {path.name: [entry.CRC for entry in zipfile.ZipFile(path).infolist()] for path in folder.glob("*.npz")}
        (folder / "checksums.json").write_text(json.dumps(sums, sort_keys=True), encoding="utf-8")

    def cache_is_complete(self, folder: Path) -> bool:
        try:
            Tokenizer.from_file(str(folder / "tokenizer.json"))
            for name in ("labels.json", "checksums.json"):
                json.loads((folder / name).read_text(encoding="utf-8"))
            damaged = [zipfile.ZipFile(path).testzip() for path in folder.glob("*.npz")]
        except Exception:  # whatever is wrong with it, it is made again
            return False
        return bool(damaged) and not any(damaged)

    @property
    def label_names(self) -> list[str]:
        """The labels, in the order of their numbers."""
        return json.loads((self.folder / "labels.json").read_text(encoding="utf-8"))

    def setup(self, stage: str) -> None:
        """Refuse splits that are missing before anything is trained."""
        for split in {"fit": ("train", "validation"), "validate": ("validation",)}.get(stage, ("test",)):
            self.dataset(split)

    def dataset(self, split: str) -> LabelledRows:
        path = self.folder / f"{split}.npz"
        if not path.is_file():
            raise InputError(f"{self.source.source} has no {split} split: set {split}_fraction above 0")
        with np.load(path) as arrays:
            rows = LabelledTokens(**arrays)
        special = bert_ids(self.tokenizer)
        return LabelledRows(rows, special["pad_token"], special["cls_token"])

    def batch_sampler(self, rows: Dataset[Any], *, train: bool) -> ResumableBatchSampler:
        """Batches by length for training, batches in order for evaluation."""
        assert isinstance(rows, LabelledRows)
        if not train:
            return super().batch_sampler(rows, train=False)
        return BucketBatchSampler(len(rows), self.batch_size, rows.length, seed=self.seed, **self._ranks())

    def targets(self, split: str) -> Targets:
        """The labels of a split."""
        return Targets(self.dataset(split).rows.labels)

    def summary(self) -> dict[str, dict[str, int]]:
        """Counts of each split, for people."""
        splits = [split for split in ("train", "validation", "test") if (self.folder / f"{split}.npz").is_file()]
        rows = {split: self.dataset(split).rows for split in splits}
        return {
            split: {"rows": len(held.labels), "tokens": len(held.tokens), "labels": len(self.label_names)}
            for split, held in rows.items()
        }
