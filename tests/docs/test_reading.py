"""docs/reading.md: its snippets print what it says, and the names in it are those of the files that it links."""

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

from docs import figures

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reading.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
PROSE = re.sub(r"^```.*?^```", "", PAGE, flags=re.DOTALL | re.MULTILINE)
SECTIONS = {text.splitlines()[0]: text for text in re.split(r"^##+ ", PROSE, flags=re.MULTILINE)[1:]}


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_prints_what_its_comments_say(snippet, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = re.findall(r"^print\(.*\)  # (.*)$", snippet, re.MULTILINE)
    assert len(said) == snippet.count("print(") > 0
    exec(snippet, {})
    assert capsys.readouterr().out.splitlines()[-len(said) :] == said


def test_every_stop_has_its_parts():
    stops = [text for title, text in SECTIONS.items() if re.match(r"\d", title)]
    assert len(stops) == len(SNIPPETS) + 1  # one has commands, which test_readme.py runs
    for stop in stops:
        assert re.findall(r"^\*\*(\w+)", stop, re.MULTILINE) == ["Question", "Look", "Skip", "Paper", "Try"]


def modules(text: str) -> list[tuple[ModuleType, str]]:
    """The Python files that a text links: imported, and their source."""
    paths = [path for path in dict.fromkeys(re.findall(r"\(\.\./(src/[\w/]+\.py)\)", text)) if (ROOT / path).exists()]
    return [(import_module(path[:-3].replace("/", ".")), (ROOT / path).read_text(encoding="utf-8")) for path in paths]


def is_there(name: str, module: ModuleType, source: str) -> bool:
    """Whether a module has this attribute, dotted ones by their path; a single word may also be a local name."""
    found = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is not None or ("." not in name and name.islower() and bool(re.search(rf"\b{name}\b", source)))


@pytest.mark.parametrize("title", SECTIONS)
def test_every_name_is_in_a_file_that_its_section_links(title):
    names = re.findall(r"`([A-Za-z_][\w.]*)`", SECTIONS[title])
    linked = modules(SECTIONS[title])
    missing = [name for name in names if not any(is_there(name, *module) for module in linked)]
    assert not missing


RULES = {
    "causal (GPT)": lambda query, key: key <= query,
    "padding behind the text (BERT)": lambda query, key: key < 9,
    "causal, window 3 (GPT)": lambda query, key: 0 <= query - key <= 3,
    "causal, padding before a prompt (GPT)": lambda query, key: key == query or 3 <= key <= query,
    "causal, documents apart (GPT)": lambda query, key: (
        key <= query and (key >= 4) + (key >= 9) == (query >= 4) + (query >= 9)
    ),
    "window 2, token 0 global (Longformer)": lambda query, key: abs(query - key) <= 2 or 0 in (query, key),
}


@pytest.mark.parametrize("name", figures.MASKS)
def test_the_picture_of_the_masks_shows_their_rules(name):
    positions = range(figures.TOKENS)
    rule = torch.tensor([[bool(RULES[name](query, key)) for key in positions] for query in positions])
    assert torch.equal(figures.visible(*figures.MASKS[name]), rule)
