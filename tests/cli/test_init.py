"""init: done in a copy of the project by a bare Python, and what is left is run."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from src.cli.init import without_extra

ROOT = Path(__file__).parents[2]
EXTRAS = ("bench", "completion", "evaluation", "float8", "huggingface", "lora", "plan", "retrieval", "serve", "sweep")
HERE = {path.parent.name for path in (ROOT / "src/extras").glob("*/__init__.py")}
pytestmark = pytest.mark.skipif(not HERE.issuperset(EXTRAS), reason="this project has taken out extras")
BARE = [sys.executable, "-S", "-m", "src"]  # with nothing installed
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
QUICK = (
    "tests/test_dependencies.py",
    "tests/cli/test_help.py::test_help_imports_nothing_heavy",
    "tests/test_readme.py::test_every_path_that_the_documents_name_exists",
    "tests/nn/test_masks.py",
)


def run(*command: object, folder: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    person = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=folder, env={**environment, **person}, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path):
    """A clone of the project as it stands here, with one commit."""
    folder = tmp_path / "a fork"
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", folder=ROOT).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / "run.sh").chmod(0o755)
    for command in (("init", "-b", "trunk"), ("add", "--all"), ("commit", "-m", "the template")):
        assert run("git", *command, folder=folder).returncode == 0
    return folder


def test_a_fork_has_its_name_and_the_extras_that_it_keeps(copy):
    gone = {"bench", "retrieval", "huggingface"}
    verbs = r"\./run\.sh (bench|rag|import|export)\b"
    assert re.search(verbs, (copy / "README.md").read_text())
    done = run("bash", "run.sh", "init", "mine", "--without", *sorted(gone), "--new-history", folder=copy)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (copy / ".venv").exists()  # nothing was installed
    for kind in ("src", "tests", "configs", "docs"):
        assert not gone & {path.name for path in (copy / kind / "extras").glob("*") if path.is_dir()}
    assert (copy / "src/extras/sweep").is_dir()

    project = tomllib.loads((copy / "pyproject.toml").read_text())["project"]
    assert project["name"] == "mine"
    before = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    of_the_gone = {"bench", "hub", "interoperability", "rag"}
    assert of_the_gone < set(before)
    assert set(project["optional-dependencies"]) == set(before) - of_the_gone
    assert "mine[sweep]" in project["optional-dependencies"]["dev"]
    readme = (copy / "README.md").read_text()
    assert readme.startswith("# mine\n")
    assert "## Ablations" in readme
    assert "--config mine.yaml" in readme
    assert not re.search(rf"^#+ (Retrieval|HuggingFace)|{verbs}|extras/({'|'.join(gone)})", readme, re.MULTILINE)
    assert "title: mine" in (copy / "CITATION.cff").read_text()
    for attribution in ("LICENSE", "CITATION.cff", "pyproject.toml"):
        assert "the transformer-template authors" in (copy / attribution).read_text()
    assert (copy / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()

    assert run("git", "status", "--porcelain", folder=copy).stdout == ""
    log = run("git", "log", "--format=%D: %s", folder=copy).stdout
    assert re.fullmatch(r"HEAD -> trunk: mine, made of transformer-template at \w+\n", log)

    listed = run(sys.executable, "-m", "src", "--help", folder=copy).stdout
    assert re.findall(r"^  (bench|export|import|rag|report|sweep) ", listed, re.MULTILINE) == ["sweep", "report"]
    checks = ([Path(sys.executable).parent / "lint-imports", "--no-cache"], [*PYTEST, *QUICK])
    for command in (*checks, [sys.executable, "-m", "ruff", "check", "--no-cache", "."], ["bash", "-n", "run.sh"]):
        done = run(*command, folder=copy)
        assert done.returncode == 0, done.stdout + done.stderr


def test_no_page_tells_of_an_extra_that_is_gone(copy):
    done = run(*BARE, "init", "mine", "--without", *EXTRAS, folder=copy)
    assert (done.returncode, done.stderr) == (0, "")
    assert "git diff shows the changes" in done.stdout
    assert run("git", "commit", "-am", "mine", folder=copy).returncode == 0
    assert (
        run(*BARE, "init", "2-ours", folder=copy).returncode == 0
    )  # once more: a name that is also a word of the texts
    changed = re.findall(r"^\+(?!\+)(.*)", run("git", "diff", folder=copy).stdout, re.MULTILINE)
    docker = "# docker build -t 2-ours . && docker run -it 2-ours"
    assert set(changed) == {docker, "# 2-ours", 'name = "2-ours"', "title: 2-ours"}
    assert len(run("git", "log", "--format=%s", folder=copy).stdout.splitlines()) == 2
    for page in [*copy.glob("*.md"), *(copy / "docs").rglob("*.md"), copy / "pyproject.toml", copy / "run.sh"]:
        text = page.read_text()
        assert not re.findall(r"extras/\w|(?:<!--|#) (?:extra|end): \w", text), page
        assert "\n\n\n" not in re.sub(r"```.*?```", "code", text, flags=re.DOTALL), page
        assert not text.endswith("\n\n"), page


def test_what_cannot_be_is_refused_in_one_line(copy):
    (copy / "mine.txt").write_text("not committed")
    for arguments, message in [
        (("a project",), "'a project' is no name of a project"),
        (("../x",), "'../x' is no name of a project"),
        (("mine", "--without", "retreival"), "there is no extra 'retreival'; did you mean 'retrieval'?"),
        (("mine", "--without", "x"), f"there are {', '.join(EXTRAS)}"),
        (("mine",), "there are uncommitted changes"),
        ((), "the following arguments are required: NAME"),
    ]:
        done = run(*BARE, "init", *arguments, folder=copy)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert run("git", "status", "--porcelain", folder=copy).stdout == "?? mine.txt\n"


def test_a_block_a_row_and_a_line_go_and_others_stay():
    text = (
        "| fit | `./run.sh fit` |\n| index | `./run.sh rag index` |\n| see | [it](docs/extras/retrieval/rag.md) |\n"
        "\n<!-- extra: retrieval -->\n## It\n<!-- extra: bench -->\nx\n<!-- end: bench -->\n<!-- end: retrieval -->\n"
        "\n<!-- extra: sweep -->\nof rag\n<!-- end: sweep -->\n    retrieval/ an index\nrag) ;; # extra: retrieval\n"
    )
    left = "| fit | `./run.sh fit` |\n\n<!-- extra: sweep -->\nof rag\n<!-- end: sweep -->\n"
    assert without_extra(text, "retrieval", ["rag"]) == left
