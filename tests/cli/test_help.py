"""Help is there at once, and a wrong verb is not a riddle."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import src.cli
from src.cli.training_help import DESCRIPTIONS, GENERAL, GROUPS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_imports_nothing_heavy(arguments):
    code = f"import sys; sys.argv[1:] = {arguments}\nimport src.cli; src.cli.main()\n"
    code += "print([m for m in ('torch', 'lightning', 'datasets', 'tokenizers', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert "python -m src fit --config configs/gpt.yaml" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_the_training_verbs_do_not_import_what_they_may_not_need():
    # torchmetrics itself imports matplotlib and transformers, where they are installed
    code = "import sys, src.cli.training; print([m for m in ('optuna', 'deepspeed', 'gensim') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_the_verbs_that_use_a_checkpoint_start_fast():
    code = "import sys, src.cli.translate, src.cli.generate, src.cli.fill_mask, src.cli.embed, src.cli.classify\n"
    code += "print([m for m in ('lightning', 'datasets', 'torchmetrics', 'transformers', 'faiss') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_help_does_not_wait_for_torch():
    """Nor does that of the verbs that a verb has itself."""
    code = """
import contextlib, importlib, sys
import src.cli
for verb, (path, _) in src.cli.VERBS.items():
    inner = getattr(importlib.import_module(path.partition(":")[0]), "VERBS", {})
    for words in [[verb], *([verb, name] for name in inner)]:
        with contextlib.suppress(SystemExit):
            src.cli.main([*words, "--help"])
heavy = ("torch", "lightning", "datasets", "torchmetrics", "transformers", "fastapi", "faiss", "matplotlib")
print([m for m in heavy if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("\n[]\n"), done.stderr


@pytest.mark.parametrize("verb", src.cli.VERBS)
def test_each_verb_has_help(run, verb):
    status, out, _ = run(verb, "--help")
    assert status == 0
    assert "usage:" in out


def test_an_unknown_verb(run):
    assert run("fti")[2] == "error: unknown verb 'fti'; did you mean 'fit'?\n"
    status, _, err = run("dance")
    assert status == 2
    assert "choose one of fit, validate" in err


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict", "prepare"])
def test_without_a_configuration_the_trainers_verbs_name_those_to_choose_from(run, verb):
    status, out, _ = run(verb, "--help")
    assert status == 0
    needed = "--config FILE" if verb in ("fit", "prepare") else "--ckpt_path FILE"
    assert out.startswith(f"usage: python -m src {verb} {needed}")
    assert DESCRIPTIONS[verb] in out
    assert re.search(r"configs/gpt\.yaml +A GPT that", out)
    assert len(out.splitlines()) < 50


def test_the_help_of_a_configuration_has_its_values_as_defaults(run):
    status, out, _ = run("fit", "--config", ROOT / "configs/gpt.yaml", "--model.config.n_layers", 3, "--help")
    assert status == 0
    for option, kind, default in (
        ("model.config.d_model", "int", "128"),  # of the file
        ("model.config.n_layers", "int", "3"),  # of the command line
        ("model.config.bias", "bool", "True"),  # of the class
        ("model.optimizer.lr", "float", "0.01"),
        ("model.schedule.warmup_steps", "int", "50"),
        ("data.batch_size", "int", "8"),
    ):
        told = re.search(rf"--{re.escape(option)} .*?\(type: (.*?), default: (.*?)\)", " ".join(out.split()))
        assert told, option
        assert told.groups() == (kind, default)
    assert "--model GPTModule: Train a GPT" in out
    assert "--model.optimizer Muon: " in out
    assert "vocab_size VOCAB_SIZE" not in out.replace("tokenizer_vocab_size TOKENIZER_VOCAB_SIZE", "")  # of the data
    assert out.index("--model.config.d_model") < out.index("--data.batch_size") < out.index("general options:")


def test_a_key_that_is_not_there_is_told_of_instead_of_the_help(run):
    status, _, err = run("fit", "--config", ROOT / "configs/gpt.yaml", "--model.config.n_layrs", 3, "--help")
    assert status == 2
    assert err.endswith("did you mean 'model.config.n_layers'?\n")


def test_the_options_that_help_names_are_there(run):
    """Each is an option of the parser or prints help itself."""
    out = "".join(run("fit", f"--{group}.help")[1] for group in GROUPS)
    for option in (name.split()[0] for name in GENERAL if name.startswith("--trainer")):
        assert f"  {option} " in out
    rest = {name.split()[0] for name in GENERAL if not name.startswith("--trainer")}
    words = ["--config", ROOT / "configs/gpt.yaml", "--experiment", "x", "--seed_everything", 1]
    assert run("fit", *words, "--allow_class_paths", "json", "--ckpt_path", "null", "--print_config")[0] == 0
    assert run("fit", *words, "--resume", "auto", "--print_config")[0] == 0
    assert rest == {"--resume", "--allow_class_paths", "--ckpt_path", *words[::2]}
    status, out, _ = run("fit", "--model.help", "BERTModule")
    assert status == 0
    assert "--model.config.d_model" in out


def test_help_names_the_program_as_it_was_called(run, monkeypatch):
    monkeypatch.setenv("RUN_SH", "./run.sh")
    for arguments, usage in (
        (["--help"], "VERB [options]"),
        (["fit", "--help"], "fit --config FILE"),
        (["fit", "--model.help", "GPTModule"], "["),
        (["generate", "--help"], "generate [-h]"),
    ):
        assert run(*arguments)[1].startswith(f"usage: ./run.sh {usage}")
    assert run("average")[2].endswith("(see ./run.sh average --help)\n")
