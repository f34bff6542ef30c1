"""Data for language modelling: any text, tokenised, packed into blocks."""

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader

from src.coverage import MeasuredTokenizer
from src.data.baselines import MOST_STREAMED, MOST_TOKENS, Targets, extent
from src.data.corpora import EMBEDDED, Corpus, documents
from src.data.datamodule import TextDataModule
from src.data.loader import TokenCountingLoader
from src.data.malformed import Malformed, Reading
from src.data.packing import PackedBlocks, PackedInfo, count_blocks, encode, is_complete, pack, read_info, write_info
from src.data.progress import announce, with_progress
from src.data.streaming import StreamedBlocks
from src.errors import InputError
from src.tokenization import END_OF_TEXT, UNKNOWN, make_tokenizer, require_token, tokenizer_text

FORMAT = 2  # of the cache; counted up when what is written changes
SHUFFLE_BUFFER = 1000  # documents of a stream
TOKENIZER_DOCUMENTS = 100_000  # a vocabulary does not get better with more


class LMDataModule(TextDataModule):
    """Blocks of ``seq_len`` tokens out of documents that end with an end token, one after the other.

    Args:
        source: ``wikipedia`` (106 articles that install with the project), files, a folder, or a hub dataset: see
            :class:`src.data.corpora.Corpus`, for this and the next ones.
        name: configuration of a hub dataset.
        revision: of a hub dataset.
        text_column: the column that holds the text.
        document_separator: what separates the documents of a text file; none for one document a file.
        validation_source: files for validation, read like ``source``.
        validation_fraction: share of the documents for validation, where the source has no such split.
        test_fraction: the same for testing; 0 for no test split.
        max_documents: read no more than this many.
        streaming: tokenise training documents as they are needed instead of preparing them; there are no epochs then.
        holdout_documents: how many of its first documents a stream gives to each of validation and test.
        strict: refuse malformed rows (not UTF-8, no JSON, of a wrong type, null or empty) instead of leaving them out.
        max_malformed: share of the rows of a file that may be left out as malformed; more are refused.
        delimiter: between the fields of a table; by its ending and its header if null.
        encoding: of texts, tables and JSON, such as ``cp1252``; UTF-8 if null, or what a table is without doubt.
        tokenizer: ``bpe``, ``char``, ``byte``, or the path of a tokenizer.json.
        tokenizer_vocab_size: of a trained ``bpe``.
        end_token: that a given tokenizer.json has; the trained ones have their own.
        seq_len: tokens a block.
        separate_documents: whether each document of a block is read as if it stood alone: no token sees another one's.
        batch_size: blocks a batch, on each rank.
        eval_batch_size: the same for validation and test; ``batch_size`` if null.
        num_workers: processes that load training batches; 0 loads them in the main process.
        seed: of the order of the blocks and of their offsets; the run's seed.
        cache_dir: where prepared data lie.

    Raises:
        InputError: a number that cannot be, or a source that cannot be read, before any training.
    """

    def __init__(
        self,
        source: str | list[str] = EMBEDDED,
        name: str | None = None,
        revision: str | None = None,
        text_column: str = "text",
        document_separator: str | None = None,
        validation_source: str | list[str] | None = None,
        validation_fraction: float = 0.05,
        test_fraction: float = 0.05,
        max_documents: int | None = None,
        streaming: bool = False,
        holdout_documents: int = 500,
        strict: bool = False,
        max_malformed: float = 0.05,
        delimiter: str | None = None,
        encoding: str | None = None,
        tokenizer: str = "bpe",
        tokenizer_vocab_size: int = 8192,
        end_token: str = END_OF_TEXT,
        seq_len: int = 256,
        separate_documents: bool = False,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str = ".cache",
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed, cache_dir)
        if seq_len < 1:
            raise InputError(f"seq_len is {seq_len}: it must be at least 1")
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
            streaming,
            holdout_documents,
            Reading(strict, max_malformed, delimiter, encoding),
        )
        if streaming and num_workers > 1:
            raise InputError(f"num_workers is {num_workers}: a stream is read by one worker at most")
        self.tokenizer_kind, self.tokenizer_vocab_size, self.end_token = tokenizer, tokenizer_vocab_size, end_token
        self.seq_len, self.separate_documents = seq_len, separate_documents
        self._info: dict[str, PackedInfo] = {}
        self._stream: Any = None  # the training documents, where they are streamed

    @property
    def special_tokens(self) -> dict[str, str]:
        unknown = {"unk_token": UNKNOWN} if self.tokenizer.token_to_id(UNKNOWN) is not None else {}
        return {"eos_token": self.end_token, **unknown}

    def cache_key(self) -> dict[str, Any]:
        given = tokenizer_text(self.tokenizer_kind)
        shape = [self.tokenizer_kind, given, self.tokenizer_vocab_size, self.end_token]
        return {"format": FORMAT, "corpus": self.corpus.fingerprint(), "tokenizer": shape}

    def fingerprint(self) -> str:
        """As for any data; of a stream, whose training documents are not prepared, also how much there is of them."""
        stream = self.corpus.sizes() if self.corpus.streaming else ""
        return hashlib.sha256(f"{super().fingerprint()}{stream}".encode()).hexdigest()

    def write_cache(self, folder: Path) -> None:
        announce(f"preparing {self.corpus.label} in {self.cache_dir} (once)")
        splits = self.corpus.splits(self.cache_dir)
        training = islice(documents(splits["train"]), TOKENIZER_DOCUMENTS)
        tokenizer = make_tokenizer(self.tokenizer_kind, self.tokenizer_vocab_size, training)
        end_id = require_token(tokenizer, self.end_token, "end_token")
        tokenizer.save(str(folder / "tokenizer.json"))
        infos = {}
        for split, rows in splits.items():
            if split == "train" and self.corpus.streaming:
                self._check_stream(rows)
            else:
                infos[split] = self._pack(tokenizer, end_id, split, rows, folder)
        write_info(folder / "info.json", infos)

    def _pack(self, tokenizer: Tokenizer, end_id: int, split: str, rows: Any, folder: Path) -> PackedInfo:
        n_rows = len(rows) if hasattr(rows, "__len__") else None
        malformed = Malformed(f"the {split} split", self.corpus.reading)
        texts = with_progress(documents(rows, malformed), f"tokenising {split} documents", n_rows)
        measured = MeasuredTokenizer(tokenizer, f"the {split} split of {self.corpus.label}")
        info = pack(measured, texts, end_id, folder / f"{split}.bin")
        if not info.documents:
            hint = ": lower holdout_documents" if self.corpus.streaming else ""
            raise InputError(f"the {split} split of {self.corpus.label} has no document with any text{hint}")
        malformed.announce()
        self.check_coverage(measured, self.tokenizer_kind)
        return info

    def _check_stream(self, rows: Any) -> None:
        if next(documents(rows), None) is None:
            raise InputError(
                f"{self.corpus.label} leaves no documents to train on after {self.corpus.holdout_documents} for each "
                "of validation and test: lower holdout_documents"
            )

    def cache_is_complete(self, folder: Path) -> bool:
        try:
            infos = read_info(folder / "info.json")
            Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception:  # whatever is wrong with it, it is made again
            return False
        return all(is_complete(folder / f"{split}.bin", info) for split, info in infos.items())

    @property
    def info(self) -> dict[str, PackedInfo]:
        """What each split holds."""
        if not self._info:
            self._info = read_info(self.folder / "info.json")
        return self._info

    def setup(self, stage: str) -> None:
        """Refuse splits that are missing or too short before anything is trained."""
        for split in {"fit": ("train", "validation"), "validate": ("validation",)}.get(stage, ("test",)):
            if split != "train" or not self.corpus.streaming:
                self.dataset(split)

    def dataset(self, split: str) -> PackedBlocks:
        if split not in self.info:
            raise InputError(f"{self.corpus.label} has no {split} split: set {split}_fraction above 0")
        seed = self.seed if split == "train" else None
        return PackedBlocks(self.folder / f"{split}.bin", self.info[split], self.seq_len, seed)

    def train_dataloader(self) -> TokenCountingLoader:
        if not self.corpus.streaming:
            return super().train_dataloader()
        end_id = require_token(self.tokenizer, self.end_token, "end_token")
        stream = StreamedBlocks(
            self._open_stream, self.tokenizer, end_id, self.seq_len, self.batch_size, **self._ranks()
        )
        loader = DataLoader(stream, batch_size=None, num_workers=self.num_workers, generator=torch.Generator())
        return self._counting(loader, stream)

    def _open_stream(self, number: int) -> Iterator[str]:
        """The training documents of a pass, shuffled within a buffer."""
        if self._stream is None:
            self._stream = self.corpus.splits(self.cache_dir)["train"]
        return documents(self._stream.shuffle(seed=self.seed + number, buffer_size=SHUFFLE_BUFFER))

    def targets(self, split: str) -> Targets:
        """The targets of a split, each with the token before it, for what only counts; no more than is counted fast."""
        if split == "train" and self.corpus.streaming:
            ids = self._first_of_stream(MOST_STREAMED + 1)
            return Targets(ids[1:], ids[:-1], f"the first {len(ids) - 1:,} train tokens of the stream")
        ids = self.dataset(split).ids
        part = extent(MOST_TOKENS, len(ids) - 1, f"{split} tokens")
        return Targets(ids[1 : MOST_TOKENS + 1], ids[:-1][:MOST_TOKENS], part)

    def _first_of_stream(self, most: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The tokens that a stream begins with."""
        end_id = require_token(self.tokenizer, self.end_token, "end_token")
        ids: list[int] = []
        texts = with_progress(self._open_stream(0), "counting the first documents of the stream")
        for document, _ in encode(MeasuredTokenizer(self.tokenizer, "the stream"), texts, end_id, group=100):
            ids += document
            if len(ids) >= most:
                break
        return np.array(ids[:most])

    def on_before_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Add to a batch the number of each token's ``documents``, (batch, seq), where they are to be kept apart.

        An end token begins the next document: what follows it is predicted from it alone, as when text is written from
        the empty prompt.
        """
        if not self.separate_documents:
            return batch
        end_id = require_token(self.tokenizer, self.end_token, "end_token")
        return {**batch, "documents": (batch["input_ids"] == end_id).long().cumsum(1)}

    def bytes_per_token(self, split: str) -> float:
        """Bytes of a split's text that are represented, for each of its targets, the end tokens among them."""
        info = self.info[split]
        return (info.bytes - info.lost_bytes) / (info.tokens - 1)

    def summary(self) -> dict[str, dict[str, int]]:
        """Counts of each split, for people."""
        return {
            split: {
                "documents": info.documents,
                "tokens": info.tokens,
                "bytes": info.bytes,
                **({"bytes not represented": info.lost_bytes} if info.lost_bytes else {}),
                "blocks": count_blocks(info.tokens, self.seq_len, free_offset=split == "train"),
            }
            for split, info in self.info.items()
        }
