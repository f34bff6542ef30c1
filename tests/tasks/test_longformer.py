"""Longformer's training: what it logs, that it learns what only a long context can tell, and from what it may start."""

from pathlib import Path

import lightning as L
import pytest

from src.data import MLMDataModule
from src.errors import InputError
from src.models import LongformerConfig
from src.optim import Constant
from src.tasks import LongformerModule
from tests.conftest import prepared
from tests.tasks.test_bert_training import QUIET, adamw
from tests.tasks.test_bert_training import task as bert_task


@pytest.fixture
def data(tmp_path: Path):
    """Documents that repeat one of four words, with five others always between."""
    documents = []
    for i in range(160):
        words = ["the"] * 120
        words[::6] = [["sun", "rain", "wind", "snow"][i % 4]] * 20
        documents.append(" ".join(words) + ".")
    (tmp_path / "corpus.txt").write_text("\n\n".join(documents), encoding="utf-8")

    def make(**changes) -> MLMDataModule:
        settings = {
            "source": str(tmp_path / "corpus.txt"),
            "document_separator": "\n\n",
            "validation_fraction": 0.2,
            "tokenizer_vocab_size": 120,
            "next_sentence": False,
            "seq_len": 130,
            "batch_size": 8,
            "cache_dir": str(tmp_path / "cache"),
        }
        return prepared(MLMDataModule(**{**settings, **changes}))

    return make


def task(module: MLMDataModule, **shape) -> LongformerModule:
    L.seed_everything(0, verbose=False)
    settings = {"max_seq_len": 130, "d_model": 32, "n_heads": 2, "n_layers": 2, "dropout": 0.0, "init_std": 0.18}
    settings |= {"attention_dropout": 0.0, "norm": "pre", "window": 2}
    config = LongformerConfig(vocab_size=module.vocab_size, **{**settings, **shape})
    return LongformerModule(config, optimizer=adamw(1e-2), schedule=Constant())


def fit(module: LongformerModule, data: MLMDataModule, steps: int, folder: Path) -> dict[str, float]:
    trainer = L.Trainer(max_steps=steps, default_root_dir=folder, enable_checkpointing=False, **QUIET)
    trainer.fit(module, data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_global_attention_carries_what_the_window_cannot(data, tmp_path):
    """A word is out of the window of its next mention, and of two windows: only [CLS] can tell which of four it is."""
    module = data()
    far = fit(task(module), module, 140, tmp_path)
    near = fit(task(module, global_tokens=[129]), module, 140, tmp_path)  # no row is as long: no token is global
    assert far["val/mlm_loss"] < 0.7 * near["val/mlm_loss"]
    assert "val/nsp_loss" not in far
    assert far["val/loss"] == far["val/mlm_loss"]


def test_bert_needs_pairs(data):
    with pytest.raises(InputError, match="a BERTModule predicts next sentences too"):
        bert_task(data(), max_seq_len=130).check_data(data())


def test_rows_without_padding_are_refused(data):
    module = data(unpadded=True)
    with pytest.raises(InputError, match=r"a Longformer has global tokens.*: set data\.unpadded to false"):
        task(module).check_data(module)


def test_rows_that_are_longer_than_the_positions_are_refused(data):
    with pytest.raises(InputError, match=r"data\.seq_len 130 is more than the model's max_seq_len 100: change one"):
        task(data(), max_seq_len=100).check_data(data())
