"""What is installed is pinned, with hashes, and its licences are listed."""

import re
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[1]
# their files differ by machine, or build what does: see requirements.lock
NOT_LOCKED = {"torch", "deepspeed", "ninja"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / path).read_text(), re.MULTILINE)
    return {canonical(name): version for name, version in found}


def direct() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: lines for name, lines in project["optional-dependencies"].items() if name != "published"}
    lines = chain(project["dependencies"], *extras.values())
    names = {re.match(r"[\w.-]+", line)[0] for line in lines}
    return {canonical(name) for name in names} - {"transformer-template", "setuptools", "wheel"}


def test_every_direct_dependency_is_pinned_and_its_licence_is_listed():
    listed = re.findall(r"^\| ([\w.-]+) \| (\S+) \| (.+) \|$", (ROOT / "docs/licences.md").read_text(), re.MULTILINE)
    licences = {canonical(name): (version, licence) for name, version, licence in listed}
    constraints = pins("constraints.txt")
    for name in direct():
        assert name in constraints, name
        assert licences[name][0] == constraints[name], name
        assert licences[name][1] != "not stated", name


def test_the_lock_has_the_same_versions_with_hashes():
    constraints, locked = pins("constraints.txt"), pins("requirements.lock")
    assert direct() - NOT_LOCKED <= locked.keys()
    assert {name: locked[name] for name in locked if name in constraints} == {
        name: version for name, version in constraints.items() if name in locked
    }
    parts = re.split(r"^(?=[\w.-]+==)", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)[1:]
    for part in parts:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", part), part.splitlines()[0]
