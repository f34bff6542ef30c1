"""Batches without padding, as they are loaded: all real tokens of their documents, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch

from src.data import MLMDataModule
from src.data.store import IGNORED
from src.errors import InputError
from tests.conftest import WORDS, prepared


@pytest.fixture
def make(tmp_path: Path):
    """A data module over documents from 1 to 60 words long."""
    rng = np.random.default_rng(0)
    documents = [" ".join(rng.choice(WORDS, rng.integers(1, 61))) + "." for _ in range(80)]
    (tmp_path / "corpus.txt").write_text("\n\n".join(documents), encoding="utf-8")

    def module(**changes) -> MLMDataModule:
        settings = {
            "source": str(tmp_path / "corpus.txt"),
            "document_separator": "\n\n",
            "validation_fraction": 0.2,
            "tokenizer_vocab_size": 100,
            "next_sentence": False,
            "unpadded": True,
            "seq_len": 40,
            "batch_size": 4,
            "cache_dir": str(tmp_path / "cache"),
        }
        return prepared(MLMDataModule(**{**settings, **changes}))

    return module


def batches(module: MLMDataModule, epoch: int = 0) -> list[dict[str, torch.Tensor]]:
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def documents(batch: dict[str, torch.Tensor]) -> list[list[int]]:
    """The original ids of each document of a batch of one row."""
    original = torch.where(batch["labels"] == IGNORED, batch["input_ids"], batch["labels"])
    return [part.tolist() for part in original[0].tensor_split(batch["document_starts"][0, 1:])][:-1]


def test_an_epoch_has_each_document_once_and_no_padding(make):
    module = make()
    found = batches(module, epoch=3)
    rows = module.dataset("train")
    cls, sep = (rows.special_ids[name] for name in ("cls_token", "sep_token"))
    for batch in found:
        assert batch["attention_mask"].all()
        assert len(documents(batch)) == 4
        for document in documents(batch):
            assert document[0] == cls
            assert document[-1] == sep or len(document) == 1  # a row that fills up the last batch
    expected = rows.__getitems__([(3, index) for index in range(len(rows))])
    original = torch.where(expected["labels"] == IGNORED, expected["input_ids"], expected["labels"])
    lengths = expected["attention_mask"].sum(1)
    alone = [row[:length].tolist() for row, length in zip(original, lengths, strict=True)]
    assert sorted(d for batch in found for d in documents(batch) if len(d) > 1) == sorted(alone)
    assert sum(batch["target_tokens"].item() for batch in found) == (expected["labels"] != IGNORED).sum()


def test_workers_and_where_an_epoch_is_taken_up_change_nothing(make):
    whole = batches(make())
    for module in (make(num_workers=2), make()):
        loader = module.train_dataloader()
        loader.load_state_dict({"epoch": 0, "position": 3})
        for found, expected in zip(loader, whole[3:], strict=True):
            assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_evaluation_is_padded_and_has_a_rate_of_its_own(make):
    module = make(mask_rate=0.3, eval_mask_rate=0.1, batch_size=64, eval_batch_size=64, seq_len=64)
    (validation, *_), (training, *_) = module.val_dataloader(), batches(module)
    assert "document_starts" not in validation
    for batch, rate in ((validation, 0.1), (training, 0.3)):
        chosen, real = (batch["labels"] != IGNORED).sum(), batch["attention_mask"].sum()
        assert chosen / real == pytest.approx(rate, rel=0.25)
    same = make(mask_rate=0.5, eval_mask_rate=0.1).dataset("validation")[0, 0]["labels"]
    assert torch.equal(same, module.dataset("validation")[0, 0]["labels"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"next_sentence": True}, "unpadded is true: it goes with whole documents alone, set next_sentence to false"),
        ({"eval_mask_rate": 1.0}, r"eval_mask_rate is 1\.0: it must be above 0 and below 1"),
    ],
)
def test_what_does_not_go_together_is_refused(make, changes, message):
    with pytest.raises(InputError, match=message):
        make(**changes)
