"""The embedded corpus reads as prose."""

import re
from pathlib import Path

import numpy as np
import pytest

from src.data import LMDataModule
from src.data.embedded import plain_text
from src.tokenization import END_OF_TEXT

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(embedded: LMDataModule) -> list[tuple[str, str]]:
    """Titles and texts, out of the tokens of all splits."""
    ids = [np.load(embedded.folder / f"{split}.npy") for split in embedded.info]
    text = embedded.tokenizer.decode(np.concatenate(ids).tolist(), skip_special_tokens=False)
    return [tuple(article.split("\n", 1)) for article in text.split(END_OF_TEXT)[:-1]]


def test_the_articles_are_whole_and_there_are_no_redirects(found):
    titles = [title for title, _ in found]
    assert len(titles) == len(set(titles)) == 106
    assert {"Anarchism", "Albedo", "Abraham Lincoln"} <= set(titles)
    assert sum(len(text.split()) for _, text in found) > 400_000
    assert all(len(text) > 200 and "#REDIRECT" not in text.upper() for _, text in found)


def test_every_text_that_counts_the_articles_gives_this_number(found):
    counted = re.compile(r"\b(\d+|hundred) (?:(?:English |embedded )?Wikipedia articles|articles that install)")
    counts = set()
    for kind in ("*.md", "*.toml", "docs/**/*.md", "configs/**/*.yaml", "src/**/*.py"):
        for path in ROOT.glob(kind):
            unwrapped = re.sub(r"\s+(#\s+)?", " ", path.read_text(encoding="utf-8"))
            counts |= {(str(path.relative_to(ROOT)), number) for number in counted.findall(unwrapped)}
    assert "README.md" in {name for name, _ in counts}
    assert {number for _, number in counts} == {str(len(found))}, counts


def test_no_markup_is_left(found):
    text = "\n".join(text for _, text in found)
    leftovers = r"\[\[|\]\]|\{\{|\}\}|\{\||'''|</?ref|<br|&nbsp;|\bFile:|\bCategory:|==|\( |\(\)| ,|  |\n\n"
    assert re.findall(f"(?:{leftovers}).{{0,40}}", text)[:5] == []


def test_articles_begin_with_their_subject(found):
    text = dict(found)
    assert text["Albedo"].startswith("Albedo or reflection coefficient")
    assert text["Anarchism"].startswith("Anarchism is a political philosophy")
    assert "\nEtymology and terminology\n" in text["Anarchism"]
    for heading in ("References", "See also", "External links"):
        assert f"\n{heading}\n" not in "\n".join(text.values())


@pytest.mark.parametrize(
    ("markup", "plain"),
    [
        ("'''Bold''' and ''italic''.", "Bold and italic."),
        ("A [[link]], [[target|shown]] and [http://example.org a site].", "A link, shown and a site."),
        ("Before<ref>A source, p. 3</ref> after<ref name=x />.", "Before after."),
        ("{{Infobox|name=x\n|y=[[z]]}}\nText {{citation needed}} here.", "Text here."),
        ("[[File:A.jpg|thumb|A [[caption]] here]]\nText.\n[[Category:Things]]", "Text."),
        ("One.\n{| class=x\n|-\n| cell\n|}\nTwo.", "One.\nTwo."),
        (
            "Text.\n== See also ==\n* [[Other]]\n=== More ===\n* x\n== History ==\nLong ago.",
            "Text.\nHistory\nLong ago.",
        ),
        ("First &amp; last, 5&nbsp;km.", "First & last, 5 km."),
        ("A name ({{lang|el|x}}; {{IPA|y}}) is given.", "A name is given."),
        ("* one\n** two\n: three", "one\ntwo\nthree"),
        ("<!-- hidden -->Seen.", "Seen."),
        ("Water is {{chem|H|2|O}} and <math>x^2</math>, they say.", "Water is and, they say."),
    ],
)
def test_markup_becomes_prose(markup, plain):
    assert plain_text(markup) == plain
