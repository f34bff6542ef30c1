"""What is installed is pinned, with hashes, and its licences are listed; the citation is of this version."""

import re
import tomllib
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
# their files differ by machine, or build what does: see requirements-dev.lock
NOT_LOCKED = {"torch", "deepspeed", "ninja"}
LOCKS = ("requirements.lock", "requirements-dev.lock")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / path).read_text(), re.MULTILINE)
    return {canonical(name): version for name, version in found}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names_of(lines: Iterable[str]) -> set[str]:
    return {canonical(re.match(r"[\w.-]+", line)[0]) for line in lines} - {
        canonical(PROJECT["name"]),
        "setuptools",
        "wheel",
    }


def direct() -> set[str]:
    return names_of(chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()))


def test_every_direct_dependency_is_pinned_and_its_licence_is_listed():
    listed = re.findall(r"^\| ([\w.-]+) \| (\S+) \| (.+) \|$", (ROOT / "docs/licences.md").read_text(), re.MULTILINE)
    licences = {canonical(name): (version, licence) for name, version, licence in listed}
    constraints = pins("constraints.txt")
    for name in direct():
        assert name in constraints, name
        assert licences[name][0] == constraints[name], name
        assert licences[name][1] != "not stated", name


@pytest.mark.parametrize("lock", LOCKS)
def test_the_locks_have_the_same_versions_with_hashes(lock):
    constraints, locked = pins("constraints.txt"), pins(lock)
    assert {name: locked[name] for name in locked if name in constraints} == {
        name: version for name, version in constraints.items() if name in locked
    }
    parts = re.split(r"^(?=[\w.-]+==)", (ROOT / lock).read_text(), flags=re.MULTILINE)[1:]
    for part in parts:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", part), part.splitlines()[0]


def test_one_lock_has_what_the_project_runs_on_and_the_other_what_its_tests_need():
    core, everything = (pins(lock).keys() for lock in LOCKS)
    assert names_of(PROJECT["dependencies"]) - NOT_LOCKED <= core
    assert core <= everything
    assert direct() - NOT_LOCKED <= everything


def test_the_citation_is_complete_and_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["title"], citation["version"]) == (PROJECT["name"], PROJECT["version"])
    assert citation["authors"] == [{"name": "the transformer-template authors"}]
    assert citation["license"] == "MIT"
