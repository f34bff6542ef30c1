"""Each extra comes off with `rm -r`: what is left passes its checks and the core's quick tests, nothing edited."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXTRAS = sorted(path.parent.name for path in (ROOT / "src/extras").glob("*/__init__.py"))
FOLDERS = ("src", "tests", "configs", "docs")
BIN = Path(sys.executable).parent
CHECKS = {
    "ruff": [sys.executable, "-m", "ruff", "check", "--no-cache", "."],
    "layers": [BIN / "lint-imports", "--no-cache"],
    "help": [sys.executable, "-m", "src", "--help"],
}
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
# the core as it is started, documented, computed and read
QUICK = (
    "tests/cli/test_help.py",
    "tests/test_readme.py::test_the_other_words_are_those_of_the_script",
    "tests/test_readme.py::test_every_path_that_the_documents_name_exists",
    "tests/models/test_gpt.py",
    "tests/models/test_transformer.py",
    "tests/data/test_packing.py",
    "tests/test_checkpoint.py",
    "tests/test_encoder.py",
)


def run(command: list[str | Path], folder: Path) -> str:
    """Run a command in a folder, whose code it uses; gives what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def copy_without(extras: list[str], folder: Path) -> Path:
    """Copy the project and take out extras, a folder of each kind for each of them."""
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for extra in extras:
        for kind in FOLDERS:
            shutil.rmtree(folder / kind / "extras" / extra, ignore_errors=True)
    return folder


def imported(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_no_file_imports_an_extra_but_its_own():
    for kind in FOLDERS:
        for path in (ROOT / kind).rglob("*.py"):
            owner = re.search(r"extras/(\w+)/", path.as_posix())
            for module in imported(path):
                named = re.match(r"(?:src|tests|docs)\.extras\.(\w+)", module)
                assert not named or (owner and owner[1] == named[1]), f"{path} imports {module}"


def test_the_core_stands_alone(tmp_path):
    copy_without(EXTRAS, tmp_path)
    printed = {name: run(command, tmp_path) for name, command in CHECKS.items()}
    from src.discovery import verbs

    assert "fit" in printed["help"]
    assert not any(re.search(rf"^  {verb} ", printed["help"], re.MULTILINE) for verb in verbs())


@pytest.fixture(scope="module")
def mypy_cache(tmp_path_factory) -> Path:
    """One for all copies, most of whose files are the same; it begins with that of the last check of the project."""
    cache = tmp_path_factory.mktemp("mypy")
    if (ROOT / ".mypy_cache").is_dir():
        shutil.copytree(ROOT / ".mypy_cache", cache, dirs_exist_ok=True)
    return cache


@pytest.mark.slow
@pytest.mark.parametrize("gone", [EXTRAS, *([name] for name in EXTRAS)], ids="+".join)
def test_what_is_left_passes_its_checks_and_tests(tmp_path, mypy_cache, gone):
    copy_without(gone, tmp_path)
    for command in CHECKS.values():
        run(command, tmp_path)
    run([sys.executable, "-m", "mypy", "--cache-dir", mypy_cache], tmp_path)
    run([*PYTEST, "--collect-only", "-m", ""], tmp_path)
    run([*PYTEST, *QUICK], tmp_path)
