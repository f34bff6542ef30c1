"""Help is there at once, and a wrong verb is not a riddle."""

import subprocess
import sys
from pathlib import Path

import pytest

import src.cli

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
