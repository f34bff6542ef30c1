"""BERT's pretraining and fine-tuning: exact sums over batches and ranks, the right positions, and real tasks learnt."""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from src.data import ClassificationDataModule, MLMDataModule
from src.data.batch_samplers import EpochBatchSampler
from src.data.loader import target_counts
from src.errors import InputError
from src.models import BERTClassifierConfig, BERTConfig
from src.optim import Constant, Linear
from src.tasks import BERTModule, ClassificationModule
from tests.conftest import prepared

SHAPE = {"max_seq_len": 40, "d_model": 32, "n_heads": 2, "n_layers": 2, "dropout": 0.0, "attention_dropout": 0.0}
QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
TOPICS = [
    ["violin", "opera", "choir"],
    ["harbour", "sailor", "anchor"],
    ["judge", "court", "verdict"],
    ["onion", "butter", "oven"],
]


def adamw(lr: float = 3e-3):
    return lambda parameters: torch.optim.AdamW(parameters, lr=lr)


@pytest.fixture
def data(tmp_path: Path):
    """Makes a data module over documents that each keep to a topic."""
    rng = np.random.default_rng(0)
    documents = []
    for i in range(80):
        nouns = TOPICS[i % len(TOPICS)]
        documents.append(" ".join("{} {}.".format(*rng.choice(nouns, 2)).capitalize() for _ in range(20)))
    (tmp_path / "corpus.txt").write_text("\n\n".join(documents), encoding="utf-8")

    def make(**changes) -> MLMDataModule:
        settings = {
            "source": str(tmp_path / "corpus.txt"),
            "document_separator": "\n\n",
            "validation_fraction": 0.2,
            "tokenizer_vocab_size": 120,
            "seq_len": 40,
            "batch_size": 8,
            "cache_dir": str(tmp_path / "cache"),
        }
        return prepared(MLMDataModule(**{**settings, **changes}))

    return make


def task(module: MLMDataModule, lr: float = 3e-3, schedule=None, **shape) -> BERTModule:
    L.seed_everything(0, verbose=False)
    config = BERTConfig(vocab_size=module.vocab_size, **{**SHAPE, **shape})
    return BERTModule(config, optimizer=adamw(lr), schedule=schedule or Constant())


def fit(model: L.LightningModule, module: L.LightningDataModule, **settings) -> L.Trainer:
    trainer = L.Trainer(**{**QUIET, "enable_checkpointing": False, "num_sanity_val_steps": 0, **settings})
    trainer.fit(model, datamodule=module)
    return trainer


def test_the_loss_is_that_of_all_positions_by_hand(data):
    module, model = data(), task(data())
    model.configure_model()
    model.eval()
    batch = next(iter(module.train_dataloader()))
    everywhere = model.model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
    words = cross_entropy(everywhere.masked_words.flatten(0, 1), batch["labels"].flatten())
    pairs = cross_entropy(everywhere.next_sentence, batch["next_sentence_label"])
    outputs = model.outputs(batch)
    assert outputs.masked_words.shape[1] < batch["input_ids"].shape[1] / 4  # the vocabulary at masked positions alone
    parts = model.losses(batch, target_counts(batch))
    torch.testing.assert_close(parts["mlm_loss"], words)
    torch.testing.assert_close(parts["nsp_loss"], pairs)


def test_accumulated_batches_train_as_one(data):
    weights = []
    for batch_size, accumulate in ((8, 1), (2, 4)):
        module = data(batch_size=batch_size, short_share=0.5)
        model = task(module)
        # not by length, so that both see the same rows in a step
        module.batch_sampler = lambda rows, train, size=batch_size: EpochBatchSampler(len(rows), size, shuffle=train)
        fit(model, module, max_steps=3, accumulate_grad_batches=accumulate, limit_val_batches=0)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], atol=2e-5, rtol=1e-3)


def test_rows_as_long_as_a_network_whose_positions_are_no_multiple_of_8(data):
    module = data(seq_len=37)
    assert max(len(row) for batch in module.train_dataloader() for row in batch["input_ids"]) == 37
    trainer = fit(task(module, max_seq_len=37), module, max_steps=1, limit_val_batches=1, val_check_interval=1)
    assert trainer.callback_metrics["val/loss"].isfinite()


def test_evaluation_is_exact_whatever_the_batches(data):
    figures = []
    for size in (64, 5):
        module = data(eval_batch_size=size)
        trainer = L.Trainer(**QUIET)
        figures.append(trainer.validate(task(module), datamodule=module, verbose=False)[0])
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)
    module, model = data(eval_batch_size=64), task(data())
    model.configure_model()
    model.eval()
    words = hits = pairs = right = 0
    loss = torch.zeros(())
    for batch in module.val_dataloader():
        everywhere = model.model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
        places, known = batch["labels"] != -100, batch["next_sentence_label"] != -100
        loss = loss + cross_entropy(everywhere.masked_words[places], batch["labels"][places], reduction="sum")
        hits += (everywhere.masked_words[places].argmax(-1) == batch["labels"][places]).sum().item()
        right += (everywhere.next_sentence.argmax(-1) == batch["next_sentence_label"])[known].sum().item()
        words, pairs = words + places.sum().item(), pairs + known.sum().item()
    assert figures[0]["val/mlm_loss"] == pytest.approx(loss.item() / words, rel=1e-4)
    assert figures[0]["val/mlm_accuracy"] == pytest.approx(hits / words)
    assert figures[0]["val/nsp_accuracy"] == pytest.approx(right / pairs)
    assert figures[0]["val/mlm_perplexity"] == pytest.approx(np.exp(loss.item() / words), rel=1e-3)
    assert figures[0]["val/loss"] == pytest.approx(figures[0]["val/mlm_loss"] + figures[0]["val/nsp_loss"], rel=1e-5)


def test_next_sentences_of_plain_topics_are_learnt(data):
    module = data(batch_size=32, seq_len=16)
    model = task(module, schedule=Linear(20), norm="pre", init_std=32**-0.5)
    figures = fit(model, module, max_epochs=80, log_every_n_steps=2, check_val_every_n_epoch=80).callback_metrics
    # of the negatives, one in four is of the same topic: 0.875 is all that can be reached
    assert figures["val/nsp_accuracy"] > 0.8
    assert figures["val/mlm_perplexity"] < 5  # of some 15 words
    assert 0 <= figures["train/padding_share"] < 0.2
    parts = (figures["train/mlm_loss"] + figures["train/nsp_loss"]).item()
    assert figures["train/loss"].item() == pytest.approx(parts, rel=1e-4)


# ---- fine-tuning


@pytest.fixture
def pretrained(data, tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint, and its tokenizer."""
    module = data()
    trainer = fit(task(module), module, max_steps=2, limit_val_batches=0)
    path = tmp_path / "pretrained.ckpt"
    trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    torch.save({**checkpoint, "config": "experiment: test"}, path)
    module.tokenizer.save(str(tmp_path / "tokenizer.json"))
    return path, tmp_path / "tokenizer.json"


def classification(tokenizer: Path, tmp_path: Path, **changes) -> ClassificationDataModule:
    settings = {"seq_len": 40, "cache_dir": str(tmp_path / "cache"), "validation_fraction": 0.25, "test_fraction": 0.25}
    return prepared(ClassificationDataModule(tokenizer=str(tokenizer), **{**settings, **changes}))


def classifier(module: ClassificationDataModule, pretrained: Path | None, **shape) -> ClassificationModule:
    L.seed_everything(0, verbose=False)
    config = BERTClassifierConfig(vocab_size=module.vocab_size, **{**SHAPE, **shape})
    return ClassificationModule(
        config, optimizer=adamw(1e-3), schedule=Linear(20), pretrained=str(pretrained) if pretrained else None
    )


def test_the_pretrained_encoder_is_taken_over_and_real_reviews_are_learnt(pretrained, tmp_path):
    checkpoint, tokenizer = pretrained
    module = classification(tokenizer, tmp_path)
    model = classifier(module, checkpoint)
    before = fit(model, module, max_steps=1, limit_val_batches=0, accumulate_grad_batches=1, limit_train_batches=0)
    held = torch.load(checkpoint, weights_only=True)["state_dict"]
    for name, weight in model.model.encoder.state_dict().items():
        assert torch.equal(weight, held[f"model.encoder.{name}"])
    assert before.global_step == 0
    trainer = fit(classifier(module, checkpoint), module, max_epochs=60, log_every_n_steps=1)
    assert trainer.callback_metrics["train/loss"] < 0.1  # the 100 training sentences, of both labels
    figures = trainer.test(trainer.lightning_module, datamodule=module, verbose=False)[0]
    assert {"test/loss", "test/accuracy", "test/f1"} == set(figures)
    predicted = trainer.predict(trainer.lightning_module, datamodule=module)
    scores = torch.cat([batch["probabilities"] for batch in predicted])[:50]
    labels = torch.from_numpy(module.dataset("test").labels)
    assert figures["test/accuracy"] == pytest.approx((scores.argmax(1) == labels).float().mean().item())


@pytest.mark.parametrize("shape", [{"d_model": 64}, {"norm": "pre"}])
def test_a_pretrained_network_of_another_shape_is_refused(pretrained, tmp_path, shape):
    checkpoint, tokenizer = pretrained
    module = classification(tokenizer, tmp_path)
    with pytest.raises(InputError, match=next(iter(shape))):
        fit(classifier(module, checkpoint, **shape), module, max_steps=1)


def test_a_pretrained_network_with_another_tokenizer_is_refused(pretrained, data, tmp_path):
    other = data(tokenizer_vocab_size=60).tokenizer
    other.save(str(tmp_path / "other.json"))
    module = classification(tmp_path / "other.json", tmp_path)
    with pytest.raises(InputError, match=r"vocab_size|tokenizer"):
        fit(classifier(module, pretrained[0]), module, max_steps=1)


def test_rows_that_are_longer_than_the_positions_are_refused(data):
    module = data(seq_len=48)
    with pytest.raises(InputError, match=r"data.seq_len 48 is more than the model's max_seq_len 40"):
        task(module).check_data(module)
