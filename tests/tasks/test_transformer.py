"""Translation as it is trained and measured: a real small task, exact scores, ranks, and bad configurations."""

import math
from pathlib import Path

import lightning as L
import pytest
import sacrebleu
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import ModelParallelStrategy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn.functional import cross_entropy, log_softmax

from src.callbacks import EMA, AttentionMaps, TranslationSamples
from src.data import LMDataModule, TranslationDataModule
from src.errors import InputError
from src.models import TransformerConfig
from src.optim import Cosine
from src.tasks import TransformerModule
from tests.conftest import prepared
from tests.reversing import reversing
from tests.tasks.measure_fast_paths import with_logits


def data_of(folder: Path, cache: Path, **changes) -> TranslationDataModule:
    options = {"tokenizer": "char", "joint_vocabulary": True, "max_length": 64, "max_tokens": 512, "max_ratio": 9}
    options |= {"source": str(folder), "source_language": "forward", "target_language": "backward"}
    options |= {"cache_dir": str(cache), "eval_max_tokens": 4096}
    return prepared(TranslationDataModule(**{**options, **changes}))


def task_of(data: TranslationDataModule, lr=3e-3, config=None, **changes) -> TransformerModule:
    shape = {"d_model": 64, "n_heads": 4, "n_encoder_layers": 1, "n_decoder_layers": 1, "dropout": 0.0, "norm": "pre"}
    shape = {**shape, "max_seq_len": 128, "tie_embeddings": True, **(config or {})}
    return TransformerModule(
        TransformerConfig(vocab_size=data.vocab_size, **shape),
        optimizer=lambda groups: torch.optim.Adam(groups, lr=lr, betas=(0.9, 0.98), fused=True),
        schedule=Cosine(warmup_steps=50),
        **changes,
    )


def trainer_of(root: Path, steps: int, **changes) -> L.Trainer:
    options = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(
        max_steps=steps, accelerator="cpu", num_sanity_val_steps=0, check_val_every_n_epoch=None,
        default_root_dir=root, gradient_clip_val=1.0, **{"val_check_interval": steps, **options, **changes},
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return reversing(tmp_path_factory.mktemp("data") / "corpus", 3000, "abcdefghij", 6)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A small task, learnt: the module, its data and its trainer."""
    L.seed_everything(0)
    root = tmp_path_factory.mktemp("run")
    data = data_of(folder, root / "cache")
    task = task_of(data, label_smoothing=0.0)
    callbacks = [TranslationSamples(3), AttentionMaps()]
    trainer = trainer_of(root, 600, logger=TensorBoardLogger(root, "", "run"), callbacks=callbacks)
    trainer.fit(task, data)
    return task, data, trainer


def test_a_reversing_task_is_learnt(trained):
    task, data, trainer = trained
    assert trainer.callback_metrics["val/token_accuracy"] > 0.95
    right = sum(example.translation == example.reference for example in task.examples)
    assert right / len(task.examples) > 0.9
    assert [example.source for example in task.examples] == [source for source, _ in data.texts("validation")]


@pytest.mark.slow
def test_reversing_long_sequences_is_learnt_within_two_minutes(tmp_path):
    """Up to 25 of 50 symbols, as in JoeyNMT's task."""
    letters = "".join(map(chr, range(0x4E00, 0x4E00 + 50)))
    folder = reversing(tmp_path / "corpus", 40_000, letters, 25)
    L.seed_everything(0)
    data = data_of(folder, tmp_path / "cache", max_tokens=1024)
    task = task_of(data, config={"d_model": 128}, label_smoothing=0.0)
    trainer_of(tmp_path, 2200).fit(task, data)
    right = sum(example.translation == example.reference for example in task.examples)
    assert right / len(task.examples) > 0.99


def test_the_scores_are_sacrebleus(trained, capsys):
    task, data, _ = trained
    (scores,) = trainer_of(Path(), 1).test(task, data, verbose=False)
    hypotheses, references = ([getattr(e, name) for e in task.examples] for name in ("translation", "reference"))
    assert references == [reference for _, reference in data.texts("test")]
    assert scores["test/bleu"] == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [references]).score, abs=1e-6)
    assert scores["test/chrf"] == pytest.approx(sacrebleu.corpus_chrf(hypotheses, [references]).score, abs=1e-6)
    assert "test/bleu: nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:" in capsys.readouterr().out
    losses, right, total = [], 0, 0
    for batch in data.test_dataloader():
        logits, labels = task.outputs(batch), batch["labels"]
        losses.append(cross_entropy(logits.transpose(1, 2), labels, reduction="sum").item())
        right += (logits.argmax(-1) == labels).sum().item()
        total += (labels != -100).sum().item()
    assert scores["test/loss"] == pytest.approx(sum(losses) / total, rel=1e-4)
    assert scores["test/perplexity"] == pytest.approx(math.exp(sum(losses) / total), rel=1e-4)
    assert scores["test/token_accuracy"] == pytest.approx(right / total, rel=1e-4)


def test_tensorboard_has_translations_signatures_and_maps_of_attention(trained):
    _, data, trainer = trained
    events = EventAccumulator(trainer.log_dir).Reload()
    tags = events.Tags()
    assert {"samples/0/text_summary", "val/bleu_signature/text_summary"} <= set(tags["tensors"])
    names = ("encoder.0.attention", "decoder.0.attention", "decoder.0.cross_attention")
    assert tags["images"] == [f"val_maps_{name}/head_{head}" for name in names for head in range(4)]
    samples = (Path(trainer.default_root_dir) / "samples" / "step_000600.txt").read_text(encoding="utf-8")
    assert samples.count("source: ") == 3
    assert f"reference: {data.texts('validation')[0][1]}\n" in samples


def test_without_logits_it_trains_as_with_them(folder, tmp_path, monkeypatch):
    """Label smoothing and padding among it."""

    def weights():
        L.seed_everything(0)
        data = data_of(folder, tmp_path / "cache")
        task = task_of(data, label_smoothing=0.1)
        trainer_of(tmp_path, 5, limit_val_batches=0, precision="32-true").fit(task, data)
        return task.state_dict()

    apart = weights()
    monkeypatch.setattr("src.nn.cross_entropy.summed_cross_entropy", with_logits)
    together = weights()
    for name, tensor in apart.items():
        torch.testing.assert_close(
            tensor, together[name], atol=5e-5, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_the_smoothed_loss_is_that_of_a_smoothed_target(folder, tmp_path):
    data = data_of(folder, tmp_path)
    task = task_of(data, label_smoothing=0.1)
    task.config = TransformerConfig(**{**vars(task.config), "source_vocab_size": data.source_vocab_size})
    task.configure_model()
    batch = next(iter(data.val_dataloader()))
    outputs = task.outputs(batch)
    vocabulary, labels = outputs.shape[-1], batch["labels"]
    target = torch.full_like(outputs, 0.1 / vocabulary)
    target.scatter_add_(2, labels.clamp(min=0)[..., None], torch.full_like(outputs, 0.9))
    per_token = -(target * log_softmax(outputs, -1)).sum(-1)
    loss = task.outputs(batch, **task.targets(batch))
    assert loss.item() == pytest.approx(per_token[labels != -100].sum().item(), rel=1e-5)


# ---- EMA


class Record(L.Callback):
    """The plain weights after each step, and those that each validation sees."""

    def __init__(self):
        self.plain, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.plain.append(pl_module.model.target_embedding.weight.detach().clone())

    def on_validation_epoch_start(self, trainer, pl_module):
        self.validated.append(pl_module.model.target_embedding.weight.detach().clone())


def test_an_average_is_validated_and_saved_and_training_goes_on_without_it(folder, tmp_path):
    runs = {}
    for name, callbacks in (("plain", []), ("averaged", [EMA(0.5)])):
        L.seed_everything(0)
        data, record = data_of(folder, tmp_path / "cache"), Record()
        task = task_of(data)
        trainer = trainer_of(tmp_path, 6, val_check_interval=3, callbacks=[*callbacks, record])
        trainer.fit(task, data)
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt")
        runs[name] = record
    for a, b in zip(runs["plain"].plain, runs["averaged"].plain, strict=True):
        assert torch.equal(a, b)
    initial = task_of(data)
    L.seed_everything(0)
    initial.config = TransformerConfig(**{**vars(initial.config), "source_vocab_size": data.source_vocab_size})
    average = initial.build_model().target_embedding.weight.detach()
    for step, weight in enumerate(runs["plain"].plain, 1):
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
        if step in (3, 6):
            torch.testing.assert_close(runs["averaged"].validated[step // 3 - 1], average)
    saved = torch.load(tmp_path / "averaged.ckpt", weights_only=True)
    torch.testing.assert_close(saved["state_dict"]["model.target_embedding.weight"], average)
    assert torch.equal(saved["plain_weights"]["model.target_embedding.weight"], runs["plain"].plain[-1])


def test_a_resumed_average_goes_on_exactly(folder, tmp_path):
    def fit(name, resume=None):
        L.seed_everything(0)
        data = data_of(folder, tmp_path / "cache")
        task = task_of(data)
        keep = ModelCheckpoint(tmp_path / name, "{step}", every_n_train_steps=1, save_top_k=-1)
        changes = {"enable_checkpointing": True, "limit_val_batches": 0}
        trainer = trainer_of(tmp_path, 6, callbacks=[EMA(0.9), keep], **changes)
        trainer.fit(task, data, ckpt_path=resume, weights_only=True)
        return torch.load(tmp_path / name / "step=6.ckpt", weights_only=True)

    whole = fit("whole")
    resumed = fit("resumed", tmp_path / "whole" / "step=3.ckpt")
    for part in ("state_dict", "plain_weights"):
        for name, weight in whole[part].items():
            torch.testing.assert_close(resumed[part][name], weight, msg=name)


def test_an_impossible_decay():
    with pytest.raises(InputError, match="decay is 1: it must be at least 0 and less than 1"):
        EMA(1)


def test_a_trainer_of_ones_own_whose_strategy_shards_the_weights_is_refused():
    """A LightningModule's own Trainer has asked nothing before its callbacks are set up."""
    trainer = L.Trainer(accelerator="cpu", devices=1, strategy=ModelParallelStrategy(), logger=False)
    with pytest.raises(InputError, match="EMA averages whole weights, and under ModelParallelStrategy no process has"):
        EMA().setup(trainer, L.LightningModule(), "fit")


# ---- bad configurations


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        ({"max_seq_len": 32}, {}, "data.max_length 64 is more than the model's max_seq_len 32"),
        ({}, {"joint_vocabulary": False}, "tie_embeddings needs one vocabulary for both languages: set data.joint_voc"),
    ],
)
def test_data_that_do_not_fit_the_network(config, changes, message, folder, tmp_path):
    data = data_of(folder, tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        trainer_of(tmp_path, 1).fit(task_of(data, config=config), data)


def test_data_of_another_task(folder, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("some words " * 100, encoding="utf-8")
    with pytest.raises(InputError, match="trains on TranslationDataModule, not on LMDataModule"):
        task_of(data_of(folder, tmp_path)).check_data(LMDataModule(source=str(text), cache_dir=str(tmp_path)))


@pytest.mark.parametrize("changes", [{"label_smoothing": 1.0}, {"beam": 0}, {"length_penalty": -1}])
def test_settings_that_cannot_be(changes, folder, tmp_path):
    with pytest.raises(InputError, match="cannot be: they are at least 0, 1 and 0"):
        task_of(data_of(folder, tmp_path), **changes)
