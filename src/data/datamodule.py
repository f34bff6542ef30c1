"""What the data of every task share: preparing once, tokenizer, loaders for training and evaluation."""

import hashlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import lightning as L
import torch
from filelock import AcquireReturnProxy, FileLock
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from src.coverage import MeasuredTokenizer
from src.data.loader import TokenCountingLoader
from src.data.progress import announce
from src.data.sampling import EpochBatchSampler, ResumableBatchSampler
from src.data.streaming import StreamedBlocks
from src.errors import InputError
from src.tokenization import tokenizer_text, vocabulary_size


class TextDataModule(L.LightningDataModule, ABC):
    """Text, prepared once on disk and read from there by every process.

    What was prepared lies in a folder of ``cache_dir`` named by a hash of all that shaped it. It is written aside and
    renamed when it is whole, under a lock, so that processes that prepare at once do no harm.

    Args:
        batch_size: rows a batch, on each rank.
        eval_batch_size: the same for validation and test; ``batch_size`` if null.
        num_workers: processes that load training batches; 0 loads them in the main process.
        seed: of the order of the rows; the run's seed.
        cache_dir: where prepared data lie.
    """

    # the files of the prepared folder that describe all of it: tokenizers, and counts with checksums
    descriptions: tuple[str, ...] = ("tokenizer.json", "info.json")

    def __init__(
        self, batch_size: int, eval_batch_size: int | None, num_workers: int, seed: int, cache_dir: str
    ) -> None:
        super().__init__()
        sizes = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "num_workers": num_workers + 1}
        for name, value in sizes.items():
            if value is not None and value < 1:
                raise InputError(f"{name} is {value if name != 'num_workers' else num_workers}: it is too small")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.num_workers, self.seed = num_workers, seed
        self.cache_dir = Path(cache_dir)
        self._folder: Path | None = None
        self._tokenizer: Tokenizer | None = None

    # ---- preparing

    @property
    @abstractmethod
    def special_tokens(self) -> dict[str, str]:
        """The special tokens by HuggingFace's names for them, such as ``eos_token``."""

    @abstractmethod
    def cache_key(self) -> dict[str, Any]:
        """All that shapes what is prepared, as plain values."""

    @abstractmethod
    def write_cache(self, folder: Path) -> None:
        """Prepare everything into a folder, ``tokenizer.json`` among it."""

    @abstractmethod
    def cache_is_complete(self, folder: Path) -> bool:
        """Whether a prepared folder is as it was written."""

    @abstractmethod
    def dataset(self, split: str) -> Dataset[Any]:
        """The rows of ``train``, ``validation`` or ``test``, by keys (epoch, index)."""

    @abstractmethod
    def summary(self) -> dict[str, dict[str, int]]:
        """Counts of each split by what is counted, ``tokens`` among them, for people."""

    def fingerprint(self) -> str:
        """A hash of what was prepared, wherever it lies: equal while tokens, tokenizer and splits are."""
        contents = [(name, (self.folder / name).read_bytes()) for name in self.descriptions]
        return hashlib.sha256(b"".join(name.encode() + content for name, content in contents)).hexdigest()

    @property
    def folder(self) -> Path:
        """Where the prepared data lie; prepares them at the first use."""
        if self._folder is None:
            key = hashlib.sha256(json.dumps(self.cache_key(), sort_keys=True).encode()).hexdigest()[:20]
            folder = self.cache_dir / f"{type(self).__name__}-{key}"
            if not self._is_prepared(folder):
                with self._lock(folder):
                    if not self._is_prepared(folder):  # another process may have been first
                        self._prepare(folder)
            self._folder = folder
        return self._folder

    def _is_prepared(self, folder: Path) -> bool:
        return folder.is_dir() and self.cache_is_complete(folder)

    def _lock(self, folder: Path) -> AcquireReturnProxy:
        try:
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            return FileLock(f"{folder}.lock").acquire()
        except OSError as error:
            raise InputError(f"cache_dir {self.cache_dir} cannot be written: {error}") from error

    def _prepare(self, folder: Path) -> None:
        aside = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
        aside.mkdir()
        try:
            self.write_cache(aside)
            for file in aside.iterdir():  # on disk before the name is: a crash must not leave a name for half a file
                with file.open("rb") as written:
                    os.fsync(written.fileno())
            if folder.exists():
                shutil.rmtree(folder)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def prepare_data(self) -> None:
        """Prepare what is not prepared yet."""
        _ = self.folder

    def check_coverage(self, tokenizer: MeasuredTokenizer, kind: str) -> None:
        """Tell what a tokenizer of a kind has lost of the texts that it encoded.

        Raises:
            InputError: it was made elsewhere and does not serve for them.
        """
        if tokenizer_text(kind):
            tokenizer.check()
        if losses := tokenizer.losses():
            announce(losses)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, trained where it needed that."""
        if self._tokenizer is None:
            self._tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        return self._tokenizer

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return vocabulary_size(self.tokenizer)

    # ---- loading

    def _ranks(self) -> dict[str, int]:
        """Rank and number of the data-parallel processes; those of one pipeline or tensor group are one."""
        kwargs = getattr(self.trainer.strategy, "distributed_sampler_kwargs", None) if self.trainer else None
        kwargs = kwargs or {"rank": 0, "num_replicas": 1}
        return {"rank": kwargs["rank"], "world_size": kwargs["num_replicas"]}

    def _mean_over_ranks(self, count: Tensor) -> Tensor:
        strategy = self.trainer.strategy  # type: ignore[union-attr]
        return strategy.reduce(count.to(strategy.root_device), reduce_op="mean").to(count.device)

    def batch_sampler(self, rows: Dataset[Any], *, train: bool) -> ResumableBatchSampler:
        """Shuffled batches for training, batches in order for evaluation."""
        size = self.batch_size if train else self.eval_batch_size
        return EpochBatchSampler(len(rows), size, seed=self.seed, shuffle=train, **self._ranks())  # type: ignore[arg-type]

    def _evaluation_loader(self, split: str) -> DataLoader[Any]:
        rows = self.dataset(split)
        sampler = self.batch_sampler(rows, train=False)
        return DataLoader(rows, batch_sampler=sampler, collate_fn=_as_it_is, generator=torch.Generator())

    def train_dataloader(self) -> TokenCountingLoader:
        """Batches with ``target_tokens``, in another order each epoch."""
        rows = self.dataset("train")
        sampler = self.batch_sampler(rows, train=True)
        # a generator of its own: a loader draws a number at each start, and training's must not depend on how often
        own = {"num_workers": self.num_workers, "generator": torch.Generator()}
        own["pin_memory"] = torch.cuda.is_available()  # so that the copy to the GPU waits for nothing
        loader = DataLoader(rows, batch_sampler=sampler, collate_fn=_as_it_is, **own)  # type: ignore[arg-type]
        return self._counting(loader, sampler)

    def _counting(self, loader: DataLoader[Any], place: ResumableBatchSampler | StreamedBlocks) -> TokenCountingLoader:
        trainer = self.trainer
        if trainer is None:
            return TokenCountingLoader(loader, place)
        place.overfit = trainer.overfit_batches > 0  # type: ignore[attr-defined]
        accumulate, taken = trainer.accumulate_grad_batches, lambda: trainer.num_training_batches
        return TokenCountingLoader(loader, place, accumulate, self._mean_over_ranks, taken)

    def val_dataloader(self) -> DataLoader[Any]:
        """The whole validation split, once."""
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> DataLoader[Any]:
        """The whole test split, once."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """The test split."""
        return self._evaluation_loader("test")


def _as_it_is(batch: Any) -> Any:
    """Data sets here give whole batches."""
    return batch
