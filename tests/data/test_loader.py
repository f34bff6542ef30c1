"""The training loader: counts of targets, and a Lightning run that is resumed in mid-epoch."""

import math
from itertools import groupby
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from src.data.batch_samplers import PADDING, EpochBatchSampler
from src.data.loader import TokenCountingLoader
from src.data.store import IGNORED


class Rows(Dataset):
    """Row i of an epoch has i + 1 targets among 12 labels."""

    def __getitems__(self, keys):
        labels = torch.full((len(keys), 12), IGNORED)
        for row, (_, index) in enumerate(keys):
            labels[row, : index + 1 if index != PADDING else 0] = 1
        return {"labels": labels, "keys": torch.tensor(keys)}


def loader(
    accumulate=1, *, size=2, n_items=11, workers=0, mean=lambda x: x, taken=lambda: math.inf, **options
) -> TokenCountingLoader:
    sampler = EpochBatchSampler(n_items, size, **{"shuffle": True, **options})
    batches = DataLoader(Rows(), batch_sampler=sampler, collate_fn=lambda batch: batch, num_workers=workers)
    return TokenCountingLoader(batches, sampler, accumulate, mean, taken)


def targets(batch) -> int:
    return int((batch["labels"] != IGNORED).sum())


@pytest.mark.parametrize("accumulate", [1, 2, 4, 10])
@pytest.mark.parametrize("workers", [0, 2])
def test_each_batch_has_the_mean_count_of_its_step(accumulate, workers):
    batches = list(loader(accumulate, workers=workers))
    assert len(batches) == 6
    for start in range(0, 6, accumulate):
        window = batches[start : start + accumulate]
        mean = sum(map(targets, window)) / accumulate
        for batch in window:
            assert batch["target_tokens"].item() == pytest.approx(mean)
            assert batch["target_tokens"].shape == ()
            assert batch["target_tokens"].dtype == torch.float32


def test_k_batches_have_the_gradient_of_one_that_is_k_times_as_large():
    weight = torch.ones(12, requires_grad=True)

    def gradients(accumulate: int, size: int) -> list[torch.Tensor]:
        found = []
        batches = list(loader(accumulate, size=size))
        for start in range(0, len(batches), accumulate):
            weight.grad = None
            for batch in batches[start : start + accumulate]:
                summed = ((batch["labels"] != IGNORED) * weight**2).sum()
                (summed / batch["target_tokens"] / accumulate).backward()
            found.append(weight.grad.clone())
        return found

    for ours, reference in zip(gradients(3, 2), gradients(1, 6), strict=True):
        torch.testing.assert_close(ours, reference)


def test_the_count_is_averaged_over_the_ranks_once_a_step():
    calls = []

    def mean(count):
        calls.append(count.item())
        return count * 10

    batches = list(loader(4, mean=mean))
    assert len(calls) == 2
    assert batches[0]["target_tokens"].item() == calls[0] * 10


def test_a_step_without_targets_does_not_divide_by_zero():
    (batch,) = loader(n_items=1, size=1, rank=1, world_size=2)
    assert targets(batch) == 0
    assert batch["target_tokens"] > 0


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_restored_loader_goes_on_with_the_next_batch_and_the_same_steps(accumulate, workers):
    first = loader(accumulate, workers=workers)
    first.sampler.set_epoch(2)
    iterator = iter(first)
    seen = [next(iterator) for _ in range(1)]
    second = loader(accumulate, workers=workers)
    second.load_state_dict(first.state_dict())
    second.sampler.set_epoch(2)
    rest = list(second)
    whole = loader(accumulate)
    whole.sampler.set_epoch(2)
    expected = list(whole)
    assert [batch["keys"].tolist() for batch in seen + rest] == [batch["keys"].tolist() for batch in expected]
    assert rest[-1]["target_tokens"] == expected[-1]["target_tokens"]


def test_nothing_is_read_before_the_epoch_is_set():
    batches = loader()
    iterator = iter(batches)
    batches.sampler.set_epoch(5)
    assert next(iterator)["keys"][0, 0] == 5


class Recorder(L.LightningModule):
    """Writes down what it is given; the run may end early, as if it was interrupted."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.stop_after = [], stop_after

    def training_step(self, batch):
        self.seen.append(batch["keys"].tolist())
        return self.weight * batch["target_tokens"]

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.stop_after is not None and len(self.seen) >= self.stop_after:
            self.trainer.should_stop = True
            self.trainer.save_checkpoint(self.trainer.default_root_dir + "/middle.ckpt")
            self.stop_after = None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def fit(folder: Path, workers: int, accumulate: int, stop_after: int | None = None, ckpt: Path | None = None):
    module = Recorder(stop_after)
    trainer = L.Trainer(
        default_root_dir=folder,
        max_epochs=3,
        accumulate_grad_batches=accumulate,
        **QUIET,
    )
    trainer.fit(module, loader(accumulate, workers=workers), ckpt_path=ckpt)
    return module.seen


# 6 batches an epoch: within one, at the end of one, within the second
@pytest.mark.parametrize(
    ("workers", "accumulate", "stop_after"), [(0, 1, 4), (2, 2, 4), (0, 2, 8), (0, 1, 6), (2, 1, 9)]
)
def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one(tmp_path, workers, accumulate, stop_after):
    whole = fit(tmp_path, workers, accumulate)
    assert len(whole) == 18
    begun = fit(tmp_path, workers, accumulate, stop_after)
    resumed = fit(tmp_path, workers, accumulate, ckpt=tmp_path / "middle.ckpt")
    assert begun[:stop_after] + resumed == whole


class Counts(Recorder):
    """Writes down the optimizer step of each batch, its targets, and the count that it is given."""

    def training_step(self, batch):
        self.seen.append((self.trainer.global_step, targets(batch), batch["target_tokens"].item()))
        return self.weight * batch["target_tokens"]


LIMITS = [{}, {"limit_train_batches": 3}, {"limit_train_batches": 0.9}, {"overfit_batches": 5}, {"max_steps": 4}]


@pytest.mark.parametrize("accumulate", [2, 4])
@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_a_step_counts_the_batches_that_are_trained_on_and_no_others(tmp_path, limits, accumulate):
    """Epochs that end within a step, of which the trainer may take a part only."""
    module = Counts()
    trainer = L.Trainer(
        default_root_dir=tmp_path,
        max_epochs=2,
        accumulate_grad_batches=accumulate,
        **QUIET,
        **limits,
    )
    trainer.fit(module, loader(accumulate, n_items=13, taken=lambda: trainer.num_training_batches))
    assert trainer.global_step >= 2
    for _, batches in groupby(module.seen, key=lambda entry: entry[0]):
        _, held, counts = zip(*batches, strict=True)
        assert counts == pytest.approx([sum(held) / accumulate] * len(counts))
