"""An architecture of one's own, in a module outside the package: it trains, resumes and generates."""

import sys

import pytest
import torch
import yaml

import src.cli
from src.architectures import ARCHITECTURES

MODULE = '''
from src.architectures import Architecture, register
from src.models import GPT, GPTConfig
from src.models.network import Step
from src.tasks import GPTModule


class Doubled(GPT):
    def steps(self, *inputs, **options):
        """A GPT whose embeddings count twice."""
        first, *others = super().steps(*inputs, **options)
        return [first._replace(run=lambda: 2 * first.run()), *others]


class DoubledModule(GPTModule):
    architecture = "doubled"

    def __init__(self, config: GPTConfig, extra: int = 0, **kwargs) -> None:
        super().__init__(config, **kwargs)
        self.extra = extra

    def build_model(self):
        return Doubled(self.config)


ENTRY = Architecture(GPTConfig, Doubled, "DoubledModule", "LMDataModule", ("eos_token",), writes="generate")
register("doubled", ENTRY)
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield ("--allow_class_paths", "own_module")
    forget()


def forget():
    ARCHITECTURES.pop("doubled", None)
    sys.modules.pop("own_module", None)


def test_it_trains_resumes_generates_and_is_not_exported(run, config, own, tmp_path):
    status, _, err = run("fit", "--config", config, *own, "--model", "own_module.DoubledModule", "--model.extra", 3)
    assert status == 0, err
    folder = tmp_path / "logs/tiny/version_0"
    settings = yaml.safe_load((folder / "config.yaml").read_text())["model"]
    assert settings["class_path"] == "own_module.DoubledModule"
    assert settings["init_args"]["extra"] == 3
    assert settings["init_args"]["config"]["d_model"] == 16  # as the configuration gave its parent
    assert settings["init_args"]["optimizer"]["init_args"]["lr"] == 1e-2
    last = folder / "checkpoints/last.ckpt"
    forget()
    # an extra's verb, if that is here
    export = [("export", "--checkpoint", last, "--output", tmp_path / "out")] if "export" in src.cli.VERBS else []
    for command in (("fit", "--ckpt_path", last), ("generate", "--checkpoint", last), *export):
        status, _, err = run(*command)
        assert status == 2
        assert "trained with a module that is not named here: add --allow_class_paths own_module" in err
        assert err.count("\n") == 1
    assert run("generate", "--checkpoint", last, "--max-new-tokens", 5, *own)[0] == 0
    for command in export:
        status, _, err = run(*command, *own)
        assert status == 2
        assert "no counterpart of a doubled" in err
    status, _, err = run("fit", "--ckpt_path", last, "--trainer.max_steps", 14, *own)
    assert status == 0, err
    resumed = torch.load(tmp_path / "logs/tiny/version_1/checkpoints/last.ckpt", weights_only=True)
    assert resumed["global_step"] == 14


def test_a_class_without_an_entry_is_refused(run, config, tmp_path, monkeypatch):
    (tmp_path / "unregistered.py").write_text(MODULE.replace("\nregister(", "\nprint("))
    monkeypatch.syspath_prepend(tmp_path)
    more = ("--allow_class_paths", "unregistered", "--model", "unregistered.DoubledModule")
    status, _, err = run("fit", "--config", config, *more)
    assert status == 2
    assert "DoubledModule trains a doubled, which no module has registered" in err
