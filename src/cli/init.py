"""init: make a project of one's own of the template.

It runs before anything is installed, so it imports the standard library alone. Texts say by themselves what of them
goes with an extra:

- a block between lines ``<!-- extra: NAME -->`` and ``<!-- end: NAME -->``, outside of Markdown with ``#`` before them;
- there also a line that ends with ``# extra: NAME``;
- in Markdown a table's row, or a line of a tree of folders, that names one of its folders or its verbs.
"""

import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from src.cli.messages import did_you_mean
from src.discovery import extras
from src.errors import InputError

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "tests", "configs", "docs")
NAMED = ("pyproject.toml", "README.md", "CITATION.cff", "Dockerfile")  # what has the project's name in it, and where:
BEFORE_NAME = r"(?m)(^# |^title: |^name = \"|^    \"| -i?t )"


def init(name: str, /, without: tuple[str, ...] | None = None, new_history: bool = False) -> None:
    """Make a project of one's own of the template: give it a name, and take out the extras that it does not need.

    The licence, the authors and the citation of the template stay: they are its attribution.

    Args:
        name: of the project
        without: extras to take out: their code, tests, configurations, pages, and what the README says of them
        new_history: make what is left the first commit of a new history of this branch; the reflog has the old one
    """
    is_repository = _git("rev-parse", "--show-prefix", check=False) == "\n"  # of this folder, and not of one above it
    _check(name, without or (), is_repository)
    if new_history:
        if not is_repository:
            _git("init")
        if not _git("var", "GIT_AUTHOR_IDENT", check=False):
            raise InputError("git does not know who commits: set user.name and user.email by git config first")
    template = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    named = re.compile(rf"{BEFORE_NAME}{re.escape(template)}(?=[\"\[\s])")
    for file in NAMED:
        _edit(ROOT / file, lambda text: named.sub(rf"\g<1>{name}", text))
    for extra in without or ():
        _take_out(extra)
        print(f"took out the extra {extra}")
    print(f"{template} is {name} now")
    if new_history:
        _commit(f"{name}, made of {template}")
    elif is_repository:
        print("git diff shows the changes; commit them")


def _check(name: str, without: tuple[str, ...], is_repository: bool) -> None:
    """Refuse a name or an extra that cannot be, and work that would be mixed up with what this changes."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        raise InputError(f"{name!r} is no name of a project: letters, digits, '-', '_' and '.' make one, as my-project")
    known = [extra.rpartition(".")[2] for extra in extras()]
    for extra in without:
        if extra not in known:
            hint = did_you_mean(extra, known) or f"; there are {', '.join(known)}"
            raise InputError(f"there is no extra {extra!r}{hint}")
    if is_repository and _git("status", "--porcelain"):
        raise InputError("there are uncommitted changes: commit or stash them first, so that this can be undone")


def _commit(message: str) -> None:
    """Make all files the first commit of a new history, on the branch of the old one."""
    commit = _git("rev-parse", "--short", "HEAD", check=False).strip()
    branch = _git("symbolic-ref", "--short", "HEAD", check=False).strip() or "main"
    _git("checkout", "--orphan", "new-history")
    _git("add", "--all")
    _git("commit", "--no-verify", "-m", f"{message} at {commit}" if commit else message)
    _git("branch", "-M", branch)
    print(f"made the first commit of a new history on {branch}")


def _take_out(extra: str) -> None:
    """Remove an extra's folders, and what the project's texts say of it."""
    verbs = import_module(f"src.extras.{extra}").VERBS
    for folder in FOLDERS:
        shutil.rmtree(ROOT / folder / "extras" / extra, ignore_errors=True)
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "pyproject.toml", ROOT / "run.sh"):
        _edit(path, lambda text: without_extra(text, extra, list(verbs)))


def without_extra(text: str, extra: str, verbs: list[str]) -> str:
    """Take out of a text what belongs to an extra."""
    begin, end = (rf"^ *(?:<!--|#) {mark}: {extra}(?: -->)?\n" for mark in ("extra", "end"))
    folder, verb = rf"\bextras/{extra}\b", rf"\./run\.sh (?:{'|'.join(map(re.escape, verbs))})\b"
    row, tree = rf"^\|.*(?:{folder}|{verb}).*\n", rf"^ +{extra}/ .*\n"
    text = re.sub(rf"{begin}(?:.*\n)*?{end}\n?", "", text, flags=re.MULTILINE)
    text = re.sub(rf"{row}|{tree}|^.*# extra: {extra}\n", "", text, flags=re.MULTILINE)
    return text.rstrip("\n") + "\n"


def _edit(path: Path, change: Callable[[str], str]) -> None:
    if path.is_file():
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def _git(*arguments: str, check: bool = True) -> str:
    """Run git in the project's folder, and return what it prints; nothing, if it may fail and does."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        if check:
            raise InputError("git is not installed") from None
        return ""
    if done.returncode and check:
        raise InputError(f"git {arguments[0]}: {done.stderr}")
    return "" if done.returncode else done.stdout
