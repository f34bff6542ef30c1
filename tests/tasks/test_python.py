"""Tasks and data from Python, without the command line: they train, and their checkpoints are as the command line's."""

import re
from functools import partial

import lightning as L
import pytest
import torch
from torch.optim import SGD, AdamW

import src.cli
from src.checkpoint import load_trained, read_checkpoint
from src.data import LMDataModule, MLMDataModule
from src.errors import InputError
from src.models import GPT, GPTConfig, LongformerConfig
from src.optim import Constant, Cosine, GroupOptions
from src.tasks import BERTModule, GPTModule, LongformerModule

SHAPE = {"d_model": 16, "n_heads": 2, "n_layers": 1, "dropout": 0.0, "attention_dropout": 0.0}
ADAMW = partial(AdamW, lr=1e-2, betas=(0.9, 0.95))


@pytest.fixture
def data(text_file, tmp_path):
    """Makes data modules over the small corpus."""

    def make(kind=LMDataModule, **changes):
        settings = {
            "source": str(text_file),
            "document_separator": "\n\n",
            "tokenizer": "char",
            "seq_len": 32,
            "batch_size": 4,
            "cache_dir": str(tmp_path / "cache"),
            "seed": 3,
        }
        return kind(**{**settings, **changes})

    return make


def gpt(kind=GPTModule, **changes) -> GPTModule:
    settings = {"config": GPTConfig(max_seq_len=32, **SHAPE), "optimizer": ADAMW, "schedule": Cosine(warmup_steps=2)}
    return kind(**{**settings, **changes})


def fitted(data, folder, task=None, **settings):
    """A task after a fit, its trainer, and the checkpoint that ModelCheckpoint leaves."""
    shown = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    usual = {"accelerator": "cpu", "max_steps": 8, "log_every_n_steps": 2, "default_root_dir": folder}
    task, trainer = task or gpt(), L.Trainer(**{**usual, **shown, **settings})
    trainer.fit(task, datamodule=data)
    return task, trainer, trainer.checkpoint_callback.best_model_path


def test_a_trainer_takes_the_vocabulary_from_the_data(data, tmp_path):
    text = data()
    task, trainer, _ = fitted(text, tmp_path)
    assert task.model.token_embedding.num_embeddings == text.vocab_size < 100
    (tested,) = trainer.test(task, datamodule=text, verbose=False)
    log_probabilities = torch.cat(trainer.predict(task, datamodule=text))
    n_targets = text.info["test"]["tokens"] - 1
    assert -log_probabilities.sum() / n_targets == pytest.approx(tested["test/loss"], rel=1e-4)


def test_a_metric_has_the_size_of_the_vocabulary_too(data, tmp_path):
    words = data(MLMDataModule, tokenizer="wordpiece", tokenizer_vocab_size=90, next_sentence=False)
    config = LongformerConfig(vocab_size=7, max_seq_len=32, window=4, **SHAPE)
    task = LongformerModule(config, optimizer=AdamW, schedule=Constant())
    task, trainer, path = fitted(words, tmp_path, task)
    again = LongformerModule.load_from_checkpoint(path)
    assert again.config == task.config
    figures = [trainer.validate(model, datamodule=words, verbose=False)[0] for model in (task, again)]
    assert figures[0] == figures[1]


def test_its_checkpoint_is_one_of_the_command_line(data, tmp_path, run):
    text, logs = data(), ("--trainer.default_root_dir", tmp_path / "logs")
    task, trainer, path = fitted(text, tmp_path)
    (expected,) = trainer.validate(task, datamodule=text, verbose=False)
    status, out, err = run("validate", "--ckpt_path", path, *logs)
    assert status == 0, err
    assert float(re.search(r"val/loss\W+([\d.]+)", out)[1]) == pytest.approx(expected["val/loss"])
    assert run("generate", "--checkpoint", path, "--max-new-tokens", 5)[0] == 0
    if "export" in src.cli.VERBS:  # an extra's verb
        learned = gpt(config=GPTConfig(max_seq_len=32, **SHAPE, positions="learned"))
        gpt2 = fitted(text, tmp_path / "gpt2", learned, max_steps=1)[2]
        status, _, err = run("export", "--checkpoint", gpt2, "--output", tmp_path / "out")
        assert status == 0, err
    # all is as it was in Python, but what is asked
    status, out, err = run("fit", "--ckpt_path", path, "--trainer.max_steps", 12, *logs)
    assert status == 0, err
    changed = out.partition("changed from the checkpoint's configuration:\n")[2].partition("Plan")[0].splitlines()
    assert [line.partition(":")[0] for line in changed] == ["trainer.max_steps", "trainer.default_root_dir"]
    last = read_checkpoint(tmp_path / "logs/run/version_1/checkpoints/last.ckpt")
    assert (last["global_step"], last["optimizer_states"][0]["param_groups"][0]["betas"]) == (12, (0.9, 0.95))


def test_a_task_is_made_of_a_checkpoint_of_the_command_line(run, config, data, tmp_path):
    """Of the least that it saves."""
    status, _, err = run("fit", "--config", config, "--checkpoint.save_weights_only", True)
    assert status == 0, err
    path = tmp_path / "logs/tiny/version_0/checkpoints/last.ckpt"
    assert run("generate", "--checkpoint", path, "--max-new-tokens", 5)[0] == 0
    task = GPTModule.load_from_checkpoint(path)
    trained = load_trained(path, GPT).model.state_dict()
    assert all(torch.equal(weight, trained[name]) for name, weight in task.model.state_dict().items())
    (group,) = task.make_optimizer([torch.zeros(2)]).param_groups
    assert (group["lr"], task.schedule.warmup_steps) == (1e-2, 2)
    _, trainer, _ = fitted(data(), tmp_path / "more", task)
    assert trainer.global_step == 8
    other = GPTModule.load_from_checkpoint(path, optimizer=partial(SGD, lr=0.5), schedule=Constant())
    assert isinstance(other.make_optimizer([torch.zeros(2)]), SGD)


class Scaled(GPTModule):
    """A task of one's own, which keeps its arguments as Lightning has it."""

    def __init__(self, config: GPTConfig, scale: float = 1.0, **kwargs) -> None:
        super().__init__(config, **kwargs)
        self.save_hyperparameters()
        self.scale = scale


def test_a_task_of_ones_own_keeps_its_arguments(data, tmp_path, run):
    groups = GroupOptions(vectors_lr_scale=0.5)
    _, _, path = fitted(data(), tmp_path, gpt(Scaled, scale=0.5, groups=groups))
    loaded = Scaled.load_from_checkpoint(path)
    assert (loaded.scale, loaded.groups) == (0.5, groups)
    assert GPTModule.load_from_checkpoint(path).config.d_model == 16  # whose network it is, without its arguments
    assert read_checkpoint(path)["modules"] == [__name__]
    logs = ("--trainer.default_root_dir", tmp_path / "logs")
    status, _, err = run("validate", "--ckpt_path", path, *logs, "--allow_class_paths", __name__)
    assert status == 0, err


def test_an_optimizer_without_a_name_is_told_and_nothing_is_lost(data, tmp_path):
    with pytest.warns(UserWarning, match="does not say GPTModule's optimizer, .*partial"):
        task, _, path = fitted(data(), tmp_path, gpt(optimizer=lambda parameters: SGD(parameters, lr=0.1)))
    with pytest.raises(InputError, match="names no optimizer: give optimizer="):
        GPTModule.load_from_checkpoint(path)
    again = GPTModule.load_from_checkpoint(path, optimizer=SGD)
    assert torch.equal(again.model.head.weight, task.model.head.weight)


def test_what_a_checkpoint_names_is_not_imported_for_it(data, tmp_path):
    _, _, path = fitted(data(), tmp_path)
    checkpoint = read_checkpoint(path)
    for other in ("os.system", "antigravity.AdamW", "torch.nn.Linear"):
        held = {**checkpoint, "config": checkpoint["config"].replace("torch.optim.adamw.AdamW", other)}
        torch.save(held, tmp_path / "other.ckpt")
        with pytest.raises(InputError, match=f"optimizer is {other}, no Optimizer of a module that is imported"):
            GPTModule.load_from_checkpoint(tmp_path / "other.ckpt")


def test_what_does_not_fit_is_refused(data, tmp_path):
    task, trainer, path = fitted(data(), tmp_path)
    with pytest.raises(InputError, match="holds a gpt, and BERTModule trains a bert"):
        BERTModule.load_from_checkpoint(path)
    with pytest.raises(InputError, match="the network was built for 32 tokens, and the data have 257"):
        trainer.validate(task, datamodule=data(tokenizer="byte"))
    with pytest.raises(InputError, match="give it a data module, as in fit"):
        L.Trainer(accelerator="cpu", logger=False).validate(task, dataloaders=data().val_dataloader())
    with pytest.raises(InputError, match="trains on LMDataModule, not on MLMDataModule"):
        trainer.fit(gpt(), datamodule=data(MLMDataModule, tokenizer="wordpiece", next_sentence=False))
