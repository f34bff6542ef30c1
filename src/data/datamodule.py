"""What the data of every task share: preparing once, tokenizer, loaders for training and evaluation."""

import hashlib
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from filelock import FileLock
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader

from src.arguments import arguments_of
from src.atomic import remove, replace_folder, write_text
from src.coverage import MeasuredTokenizer
from src.data.batch_samplers import BucketBatchSampler, EpochBatchSampler, ResumableBatchSampler
from src.data.corpora import EMBEDDED, Corpus
from src.data.journal import INFO, is_complete, once, write_info
from src.data.loader import TokenCountingLoader, as_it_is
from src.data.malformed import Malformed, Reading
from src.data.packing import StreamedBlocks
from src.data.progress import announce, with_progress, working
from src.data.sharing import Part, join, parts_of
from src.data.tables import MissingColumnError
from src.data.texts import Piece
from src.errors import InputError
from src.tokenization import make_tokenizer, tokenizer_text, vocabulary_size

FORMAT = 4  # of what is prepared; counted up when that changes
TOKENIZER = "tokenizer.json"
TOKENIZER_DOCUMENTS = 100_000  # a vocabulary does not get better with more


class TextDataModule(L.LightningDataModule, ABC):
    """Text, prepared once on disk and read from there by every process.

    What was prepared lies in a folder of ``cache_dir`` named by a hash of all that shaped it. It is written aside and
    renamed when it is complete, under a lock, so that processes that prepare at once do no harm. Nothing is there
    before ``prepare_data``; the tokenizer and the counts are there after it, and ``setup`` opens the splits.

    Args:
        validation_fraction: fraction of the rows for validation, where the source has no such split.
        test_fraction: the same for testing; 0 for no test split.
        strict: refuse malformed rows (not UTF-8, no JSON, of a wrong type, null or empty) instead of leaving them out.
        max_malformed: fraction of the rows of a file that may be left out as malformed; more are refused.
        delimiter: between the fields of a table; by its ending and its header if None.
        encoding: of texts, tables and JSON, such as ``cp1252``; UTF-8 if None, or what a table is without doubt.
        batch_size: rows a batch, on each rank.
        eval_batch_size: the same for validation and test; ``batch_size`` if None.
        num_workers: processes that load batches; 0 loads them in the main process.
        seed: of the order of the rows and of all that is drawn for them; the run's seed.
        cache_dir: where prepared data lie.
    """

    label: str  # of the source, for people
    can_be_shared = False  # whether several machines can prepare a part each

    def __init__(
        self,
        *,
        validation_fraction: float = 0.05,
        test_fraction: float = 0.05,
        strict: bool = False,
        max_malformed: float = 0.05,
        delimiter: str | None = None,
        encoding: str | None = None,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str = ".cache",
    ) -> None:
        super().__init__()
        self.arguments = arguments_of(self)
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("num_workers", num_workers, 0),
        ):
            if value is not None and value < least:
                raise InputError(f"{name} is {value}: it is too small")
        self.validation_fraction, self.test_fraction = validation_fraction, test_fraction
        self.reading = Reading(strict, max_malformed, delimiter, encoding)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.num_workers, self.seed = num_workers, seed
        self.cache_dir = Path(cache_dir)
        self.part: Part | None = None  # that is prepared, if not all
        self._datasets: dict[str, Any] = {}

    # ---- preparing

    @property
    @abstractmethod
    def special_tokens(self) -> dict[str, str]:
        """The special tokens by HuggingFace's names for them, such as ``eos_token``."""

    @abstractmethod
    def cache_key(self) -> dict[str, Any]:
        """Give all that shapes what is prepared, as plain values."""

    @abstractmethod
    def write_cache(self, folder: Path) -> dict[str, dict[str, int]]:
        """Prepare everything into a folder, ``tokenizer.json`` among it, and give the counts of each split."""

    @abstractmethod
    def open_split(self, split: str) -> Any:
        """Open the data set of a split that was prepared: rows by keys (epoch, index)."""

    @cached_property
    def folder(self) -> Path:
        """Where prepared data of this key lie, or will."""
        key = json.dumps({"format": FORMAT, **self.cache_key()}, sort_keys=True)
        whole = self.cache_dir / f"{type(self).__name__}-{hashlib.sha256(key.encode()).hexdigest()[:20]}"
        return whole if self.part is None else self.part.folder(whole)

    def prepare_data(self) -> None:
        """Prepare what is not prepared yet, or no longer as it was written."""
        if is_complete(self.folder):
            return
        try:
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{self.folder}.lock").acquire()
        except OSError as error:
            raise InputError(f"cache_dir {self.cache_dir} cannot be written: {error}") from error
        with lock:
            if not is_complete(self.folder):  # another process may have been first
                announce(f"preparing {self.label} in {self.cache_dir} (once)")
                self._prepare()

    def _prepare(self) -> None:
        aside = self.folder.with_name(f"{self.folder.name}.partial")
        aside.mkdir(exist_ok=True)  # of a process that was killed: its notes say what of it counts
        try:
            parts = [] if self.part else parts_of(self.folder)
            if not is_complete(aside):  # else it was killed just before the next line
                write_info(aside, join(parts, aside) if parts else self.write_cache(aside))
            replace_folder(aside, self.folder)
            for part in parts:
                remove(part)
        except Exception as error:
            shutil.rmtree(aside, ignore_errors=True)
            if isinstance(error, MissingColumnError):
                for name, value in self.arguments.items():
                    if value == error.column and name.endswith(("_column", "_language")):
                        raise InputError(f"{error}; name it by --data.{name}") from error
            raise

    def shared(self, *several: Any) -> list[Any]:
        """Choose what of the rows of a split, of one source or of several, is prepared here: all, or a part."""
        return list(several) if self.part is None else self.part.of_rows(several)

    # ---- what was prepared

    def prepared(self, file: str) -> Path:
        """Find a file of the prepared folder."""
        if not (self.folder / INFO).is_file():
            raise RuntimeError(f"{self.label} is not prepared yet: call prepare_data first")
        return self.folder / file

    @cached_property
    def info(self) -> dict[str, dict[str, int]]:
        """The counts of each split, as they were written."""
        return json.loads(self.prepared(INFO).read_bytes())["splits"]

    def summary(self) -> dict[str, dict[str, int]]:
        """Give the counts of each split by what is counted, ``tokens`` among them, for people."""
        return self.info

    def fingerprint(self) -> str:
        """Hash what was prepared, wherever it lies: equal while tokens, tokenizer and splits are."""
        return hashlib.sha256(self.prepared(INFO).read_bytes()).hexdigest()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, trained where it needed that."""
        return Tokenizer.from_file(str(self.prepared(TOKENIZER)))

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return vocabulary_size(self.tokenizer)

    # ---- loading

    def setup(self, stage: str) -> None:
        """Open the splits of a stage, so that what is missing or too short is refused before anything is trained."""
        for split in {"fit": ("train", "validation"), "validate": ("validation",)}.get(stage, ("test",)):
            self.dataset(split)

    def dataset(self, split: str) -> Any:
        """Give the rows of ``train``, ``validation`` or ``test``, opened once."""
        if split not in self._datasets:
            if split not in self.info:
                raise InputError(f"{self.label} has no {split} split: set {split}_fraction above 0")
            self._datasets[split] = self.open_split(split)
        return self._datasets[split]

    def _ranks(self) -> dict[str, int]:
        """Rank and number of the data-parallel processes; those of one pipeline or tensor group are one."""
        kwargs = getattr(self.trainer.strategy, "distributed_sampler_kwargs", None) if self.trainer else None
        kwargs = kwargs or {"rank": 0, "num_replicas": 1}
        return {"rank": kwargs["rank"], "world_size": kwargs["num_replicas"]}

    def _mean_over_ranks(self, count: Tensor) -> Tensor:
        # it stays there: to fetch it would wait for all that the GPU has still to do
        count = count.to(self.trainer.strategy.root_device, non_blocking=True)  # type: ignore[union-attr]
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(count)  # not by `Strategy.reduce`, which waits at a barrier before
            count /= dist.get_world_size()
        return count

    def batch_sampler(self, rows: Any, *, train: bool) -> ResumableBatchSampler:
        """Shuffle for training, by length where rows have lengths; for evaluation, keep the order."""
        if train and hasattr(rows, "lengths"):
            return BucketBatchSampler(len(rows), self.batch_size, rows.lengths, seed=self.seed, **self._ranks())
        size = self.batch_size if train else self.eval_batch_size
        return EpochBatchSampler(len(rows), size, seed=self.seed, shuffle=train, **self._ranks())

    def _loader(self, rows: Any, **batches: Any) -> DataLoader[Any]:
        return DataLoader(
            rows,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),  # so that the copy to the GPU waits for nothing
            # of its own: a loader draws a number at each start, and training's must not depend on how often
            generator=torch.Generator(),
            **batches,
        )

    def _evaluation_loader(self, split: str) -> DataLoader[Any]:
        rows = self.dataset(split)
        return self._loader(rows, batch_sampler=self.batch_sampler(rows, train=False), collate_fn=as_it_is)

    def train_dataloader(self) -> TokenCountingLoader:
        """Give batches with ``target_tokens``, in another order each epoch."""
        rows = self.dataset("train")
        sampler = self.batch_sampler(rows, train=True)
        return self._counting(self._loader(rows, batch_sampler=sampler, collate_fn=as_it_is), sampler)

    def _counting(
        self, loader: DataLoader[Any], sampler: ResumableBatchSampler | StreamedBlocks
    ) -> TokenCountingLoader:
        trainer = self.trainer
        if trainer is None:
            return TokenCountingLoader(loader, sampler)
        sampler.overfit = trainer.overfit_batches > 0  # type: ignore[attr-defined]
        accumulate, taken = trainer.accumulate_grad_batches, lambda: trainer.num_training_batches
        return TokenCountingLoader(loader, sampler, accumulate, self._mean_over_ranks, taken)

    def val_dataloader(self) -> DataLoader[Any]:
        """Give the whole validation split, once."""
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> DataLoader[Any]:
        """Give the whole test split, once."""
        return self._evaluation_loader("test")

    predict_dataloader = test_dataloader


class DocumentDataModule(TextDataModule):
    """Documents from anywhere, and a tokenizer that is trained on them or given.

    Args:
        tokenizer: a kind of tokenizer, or the path of a tokenizer.json.
        source: ``wikipedia`` (106 articles that install with the project), files, a folder, or a hub dataset: see
            :class:`src.data.corpora.Corpus`, for this and the next ones.
        name: configuration of a hub dataset.
        revision: of a hub dataset.
        text_column: the column that holds the text.
        document_separator: what separates the documents of a text file; none for one document a file.
        validation_source: files for validation, read like ``source``.
        max_documents: read no more than this many.
        tokenizer_vocab_size: of a trained tokenizer.
        tokenizer_cased: whether a trained ``wordpiece`` keeps case and accents; if None, it does unless 99.5% of the
            letters are ASCII, as those of English are.
    """

    def __init__(
        self,
        *,
        tokenizer: str,
        source: str | list[str] = EMBEDDED,
        name: str | None = None,
        revision: str | None = None,
        text_column: str = "text",
        document_separator: str | None = None,
        validation_source: str | list[str] | None = None,
        max_documents: int | None = None,
        tokenizer_vocab_size: int = 8192,
        tokenizer_cased: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.corpus = Corpus(
            source,
            name,
            revision,
            text_column,
            document_separator,
            validation_source,
            self.validation_fraction,
            self.test_fraction,
            max_documents,
            reading=self.reading,
        )
        self.label = self.corpus.label
        self.tokenizer_kind, self.tokenizer_vocab_size = tokenizer, tokenizer_vocab_size
        self.tokenizer_cased = tokenizer_cased

    def once(
        self,
        folder: Path,
        split: str,
        tokenizer: Tokenizer,
        write: Callable[[MeasuredTokenizer, Malformed], dict[str, int]],
    ) -> dict[str, int]:
        """Write a split as :func:`once` does.

        What was left out of it is told, and what its tokenizer has lost. One that was made elsewhere and does not serve
        for the texts is refused.
        """
        measured = MeasuredTokenizer(tokenizer, f"the {split} split of {self.label}")
        malformed = Malformed(f"the {split} split", self.reading)

        def written() -> tuple[dict[str, int], list[str]]:
            counts = write(measured, malformed)
            return counts, [*malformed.report(), *check_coverage(measured, self.tokenizer_kind)]

        return once(folder, split, written)

    def tokenizer_key(self) -> list[Any]:
        """Give all that shapes the tokenizer."""
        given = tokenizer_text(self.tokenizer_kind)
        return [self.tokenizer_kind, given, self.tokenizer_vocab_size, self.tokenizer_cased]

    def save_tokenizer(self, folder: Path, pieces: Iterable[Piece], total: int | None = None) -> Tokenizer:
        """Make the tokenizer of the first of some pieces, about ``total``, and save it among what is prepared."""
        path = folder / TOKENIZER
        if path.is_file():  # of a process that was killed
            return Tokenizer.from_file(str(path))
        total = min(total or TOKENIZER_DOCUMENTS, TOKENIZER_DOCUMENTS)
        some = with_progress(islice(pieces, TOKENIZER_DOCUMENTS), "reading texts for the tokenizer", total)
        texts = (piece.text for piece in some)
        with working("making the tokenizer"):  # a vocabulary is chosen when all texts are read
            tokenizer = make_tokenizer(self.tokenizer_kind, self.tokenizer_vocab_size, texts, self.tokenizer_cased)
        write_text(path, tokenizer.to_str(pretty=True))
        return tokenizer


def check_coverage(tokenizer: MeasuredTokenizer, kind: str) -> list[str]:
    """Say what a tokenizer has lost of the texts that it encoded; refuse one made elsewhere that does not serve."""
    if tokenizer_text(kind):
        tokenizer.check()
    return list(filter(None, [tokenizer.losses()]))
