"""Data for language modelling: any text, tokenised, packed into blocks."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from src.coverage import MeasuredTokenizer
from src.data.baselines import MOST_STREAMED, MOST_TOKENS, Targets, extent
from src.data.corpora import Pieces, count
from src.data.datamodule import DocumentDataModule
from src.data.journal import Journal
from src.data.loader import TokenCountingLoader, as_it_is
from src.data.malformed import Malformed
from src.data.packing import PackedBlocks, StreamedBlocks, count_blocks
from src.data.progress import with_progress
from src.data.store import RowWriter, end_to_end, open_rows, token_dtype, with_end
from src.data.streams import DocumentStream
from src.data.texts import Piece, grouped
from src.data.workers import in_parallel
from src.errors import InputError
from src.tokenization import END_OF_TEXT, UNKNOWN, require_token, start_ids

LOST = "bytes not represented"


class LMDataModule(DocumentDataModule):
    """Blocks of ``seq_len`` tokens out of documents that end with an end token, one after the other.

    Args:
        streaming: tokenise training documents as they are needed instead of preparing them, in each of ``num_workers``
            processes some; there are no epochs then.
        holdout_documents: how many of its first documents a stream gives to each of validation and test.
        tokenizer: ``bpe``, ``unigram``, ``char``, ``byte``, or the path of a tokenizer.json.
        end_token: that a given tokenizer.json has; the trained ones have their own.
        start_token: that a given tokenizer.json puts before each text: it begins the document behind an end token.
        padded_vocab_size: rows of the embedding, where there are more of them than of the tokenizer's ids.
        seq_len: tokens a block.
        separate_documents: whether each document of a block is read as if it stood alone: no token sees another one's.
    """

    def __init__(
        self,
        *,
        streaming: bool = False,
        holdout_documents: int = 500,
        tokenizer: str = "bpe",
        end_token: str = END_OF_TEXT,
        start_token: str | None = None,
        padded_vocab_size: int | None = None,
        seq_len: int = 256,
        separate_documents: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer=tokenizer, tokenizer_cased=None, **kwargs)
        if seq_len < 1:
            raise InputError(f"seq_len is {seq_len}: it must be at least 1")
        self.corpus = replace(self.corpus, streaming=streaming, holdout_documents=holdout_documents)
        self.can_be_shared = not streaming
        self.end_token, self.start_token, self.padded_vocab_size = end_token, start_token, padded_vocab_size
        self.seq_len, self.separate_documents = seq_len, separate_documents

    @property
    def special_tokens(self) -> dict[str, str]:
        unknown = {"unk_token": UNKNOWN} if self.tokenizer.token_to_id(UNKNOWN) is not None else {}
        start = {} if self.start_token is None else {"bos_token": self.start_token}
        return {"eos_token": self.end_token, **start, **unknown}

    @property
    def vocab_size(self) -> int:
        """How many embeddings there are: one an id, or ``padded_vocab_size``."""
        ids = super().vocab_size
        if self.padded_vocab_size is not None and self.padded_vocab_size < ids:
            raise InputError(f"padded_vocab_size is {self.padded_vocab_size}: the tokenizer has {ids:,} ids")
        return self.padded_vocab_size or ids

    def end_ids(self, tokenizer: Tokenizer) -> list[int]:
        """Find what stands behind a document: the end token, and the start token of the one that follows."""
        end = require_token(tokenizer, self.end_token, "end_token")
        if self.start_token is None:
            return [end]
        start = require_token(tokenizer, self.start_token, "start_token")
        if start_ids(tokenizer, {"bos_token": self.start_token}) != [start]:
            raise InputError(f"the tokenizer does not put {self.start_token!r} before a text: leave start_token out")
        return [end, start]

    # ---- preparing

    def cache_key(self) -> dict[str, Any]:
        ends = [token for token in (self.end_token, self.start_token) if token is not None]
        return {"corpus": self.corpus.fingerprint(), "tokenizer": [*self.tokenizer_key(), *ends]}

    def fingerprint(self) -> str:
        """Hash as for any data; of a stream, whose training documents are not prepared, also how much there is."""
        stream = self.corpus.sizes() if self.corpus.streaming else ""
        return hashlib.sha256(f"{super().fingerprint()}{stream}".encode()).hexdigest()

    def write_cache(self, folder: Path) -> dict[str, dict[str, int]]:
        splits = self.corpus.splits(self.cache_dir)
        tokenizer = self.save_tokenizer(folder, Pieces(splits["train"]), count(splits["train"]))
        end_ids = self.end_ids(tokenizer)
        infos = {}
        for split, rows in splits.items():
            if split == "train" and self.corpus.streaming:
                if next(iter(Pieces(rows)), None) is None:
                    raise InputError(
                        f"{self.label} leaves no documents to train on after {self.corpus.holdout_documents} for each "
                        "of validation and test: lower holdout_documents"
                    )
                continue
            write = partial(self._write_split, folder, split, rows, end_ids)
            infos[split] = self.once(folder, split, tokenizer, write)
        return infos

    def _write_split(
        self,
        folder: Path,
        split: str,
        rows: Any,
        end_ids: list[int],
        measured: MeasuredTokenizer,
        malformed: Malformed,
    ) -> dict[str, int]:
        (rows,) = self.shared(rows)
        pieces = with_progress(Pieces(rows, malformed), f"tokenising {split} documents", count(rows))
        counts = pack(measured, pieces, end_ids, folder, split)
        if not counts["documents"] and self.part is None:
            hint = ": lower holdout_documents" if self.corpus.streaming else ""
            raise InputError(f"the {split} split of {self.label} has no document with any text{hint}")
        return counts

    # ---- loading

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.corpus.streaming:
            self.dataset("validation")
        else:
            super().setup(stage)

    def open_split(self, split: str) -> PackedBlocks:
        seed = self.seed if split == "train" else None
        return PackedBlocks(open_rows(self.folder, split).values, self.seq_len, seed, split)

    def train_dataloader(self) -> TokenCountingLoader:
        if not self.corpus.streaming:
            return super().train_dataloader()
        stream = self._streamed(workers=max(self.num_workers, 1), gather=_gather, **self._ranks())
        return self._counting(self._loader(stream, batch_size=None, collate_fn=as_it_is), stream)

    def _streamed(self, **readers: Any) -> StreamedBlocks:
        batch = (self.tokenizer, self.end_ids(self.tokenizer), self.seq_len, self.batch_size)
        return StreamedBlocks(self.stream, *batch, seed=self.seed, **readers)

    @cached_property
    def stream(self) -> DocumentStream:
        """The training documents, where they are streamed."""
        return self.corpus.splits(self.cache_dir)["train"]

    def on_before_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Add to a batch the number of each token's ``documents``, (batch, seq), where they are to be kept apart.

        The last token that stands between two documents, the end token where there is no start token, begins the next
        one: what follows it is predicted from it alone, as when text is written from the empty prompt.
        """
        if not self.separate_documents:
            return batch
        return {**batch, "documents": (batch["input_ids"] == self.end_ids(self.tokenizer)[-1]).long().cumsum(1)}

    # ---- counts

    def targets(self, split: str) -> Targets:
        """Give the targets of a split, each with the token before it; no more than is counted fast."""
        if split == "train" and self.corpus.streaming:
            wanted = -(-MOST_STREAMED // (self.batch_size * self.seq_len))  # batches
            batches = list(
                with_progress(islice(self._streamed(), wanted), "counting the first documents of the stream")
            )
            contexts, ids = (
                torch.cat([batch[name].flatten() for batch in batches]).numpy()[:MOST_STREAMED]
                for name in ("input_ids", "labels")
            )
            return Targets(ids, contexts, f"the first {len(ids):,} train tokens of the stream")
        ids = self.dataset(split).ids
        part = extent(MOST_TOKENS, len(ids) - 1, f"{split} tokens")
        return Targets(ids[1 : MOST_TOKENS + 1], ids[:-1][:MOST_TOKENS], part)

    def bytes_per_token(self, split: str) -> float:
        """Divide the bytes of a split's text that are represented by its targets, the end tokens among them."""
        info = self.info[split]
        return (info["bytes"] - info.get(LOST, 0)) / (info["tokens"] - 1)

    def summary(self) -> dict[str, dict[str, int]]:
        return {
            split: {**info, "blocks": count_blocks(info["tokens"], self.seq_len, free_offset=split == "train")}
            for split, info in self.info.items()
        }


def pack(
    tokenizer: MeasuredTokenizer, pieces: Iterable[Piece], end_ids: list[int], folder: Path, split: str
) -> dict[str, int]:
    """Write the ids of all documents, each with its end behind it, and count them."""
    journal = Journal(folder, split, tokenizer, n_arrays=2)
    n_bytes = journal.counts.get("bytes", 0)
    dtype = token_dtype(tokenizer.tokenizer)
    with RowWriter(folder, split, dtype, journal.lengths) as rows:
        groups = grouped(journal.rest(pieces))
        for group, done in in_parallel(partial(_tokenised, tokenizer, dtype, end_ids), groups):
            rows.extend(done.ids, done.ends)
            tokenizer.add(done.counts)
            n_bytes += done.n_bytes
            journal.note(len(group), tokenizer.counts, (rows.values, rows.starts), bytes=n_bytes)
    counts = {"documents": len(rows), "tokens": rows.values.length, "bytes": n_bytes, LOST: tokenizer.lost_bytes}
    return {what: n for what, n in counts.items() if n or what != LOST}


class _Tokenised(NamedTuple):
    """A group of pieces.

    Args:
        ids: of all, end to end.
        ends: where documents end among them.
        n_bytes: of their texts.
        counts: the tokenizer's.
    """

    ids: NDArray[np.integer]
    ends: NDArray[np.int64]
    n_bytes: int
    counts: dict[str, Any]


def _tokenised(
    tokenizer: MeasuredTokenizer, dtype: type[np.unsignedinteger], end_ids: list[int], group: list[Piece]
) -> _Tokenised:
    tokenizer = tokenizer.apart()
    encodings = tokenizer.encode([piece.text for piece in group])
    rows = [with_end(piece, encoding, end_ids) for piece, encoding in zip(group, encodings, strict=True)]
    ids, ends = end_to_end(rows, dtype)
    n_bytes = sum(len(piece.text.encode()) for piece in group)
    return _Tokenised(ids, ends[[piece.is_last for piece in group]], n_bytes, tokenizer.counts)


def _gather(mine: Any) -> list[Any]:
    """Gather an object of each process of a job, which all call it."""
    if not (dist.is_available() and dist.is_initialized()):
        return [mine]
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    return found
