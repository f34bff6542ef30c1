"""What bash completes, by the script that is written for it."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("shtab", reason="needs the package shtab")
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "run.sh.bash"
    program = [sys.executable, "-m", "src", "completion", "bash"]
    path.write_text(subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    return path


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("ge", {"generate"}),
        ("generate --prom", {"--prompt"}),
        ("fit --trainer.max", {"--trainer.max_steps"}),
        ("fit --config pyproj", {"pyproject.toml"}),
        ("validate --guard", {"--guard.help"}),
    ],
)
def test_bash_completes(script, words, completed):
    code = f"source {script}; COMP_WORDS=(./run.sh {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _shtab_run_sh; "
    code += 'printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert set(done.stdout.split()) == completed, done.stderr


def test_zsh_has_a_script_too(run):
    status, out, _ = run("completion", "zsh")
    assert status == 0
    assert out.startswith("#compdef run.sh")
