"""run.sh, from a folder that is not the checkout."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SET_UP = pytest.mark.skipif(not (ROOT / ".venv/.installed").exists(), reason="run.sh did not set up this checkout")


def call(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    command = [ROOT / "run.sh", *arguments]
    return subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)


@SET_UP
def test_relative_paths_and_modules_are_the_callers(tmp_path):
    """Whose folder has a package `src` as well."""
    folder = tmp_path / "a folder"
    (folder / "src").mkdir(parents=True)
    (folder / "src/__init__.py").touch()
    (folder / "mine.yaml").write_text("experiment: mine\nmodel: my_module.MyModule\n")
    (folder / "my_module.py").write_text("from src.tasks import GPTModule\nclass MyModule(GPTModule):\n    pass\n")
    base, own = str(ROOT / "configs/gpt.yaml"), ("--config", "mine.yaml", "--allow_class_paths", "my_module")
    done = call("fit", "--config", base, *own, "--print_config", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    settings = yaml.safe_load(done.stdout)
    assert (settings["experiment"], settings["model"]["class_path"]) == ("mine", "my_module.MyModule")


@SET_UP
def test_pytest_takes_the_callers_paths_and_keeps_bytecode_apart_where_none_may_be_written(tmp_path):
    kept = f"assert (sys.dont_write_bytecode, sys.pycache_prefix) == (False, {str(ROOT / '.venv/bytecode')!r})"
    (tmp_path / "test_mine.py").write_text(f"import sys\ndef test_it():\n    import src.nn\n    {kept}\n")
    done = call("pytest", "-q", "test_mine.py", folder=tmp_path, PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.parametrize(
    ("settings", "said"), [({"PYTHON": "no-such-python"}, "Python 3.11 or newer"), ({"PYTHON": "cat"}, "Python 3.11")]
)
def test_without_a_python_it_says_what_is_needed(tmp_path, settings, said):
    """A copy without .venv."""
    for name in ("run.sh", "pyproject.toml", "constraints.txt", "requirements.lock", "requirements-dev.lock"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    command = ["bash", tmp_path / "run.sh", "fit"]
    done = subprocess.run(command, env={"PATH": "/usr/bin:/bin", **settings}, capture_output=True, text=True)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / ".venv").exists()
