"""The corpus that installs with the project: whole English Wikipedia articles out of gensim's wheel (CC BY-SA)."""

import bz2
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import mwparserfromhell
from mwparserfromhell.nodes import Tag, Wikilink
from mwparserfromhell.wikicode import Wikicode

from src.errors import InputError

DUMP = "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"

# lists of links and sources, not prose
NO_PROSE = {
    "bibliography",
    "citations",
    "external links",
    "further reading",
    "gallery",
    "notes",
    "notes and references",
    "references",
    "see also",
    "sources",
    "works cited",
}
# tags whose content is no prose: tables, footnotes, formulas, source code
NO_PROSE_TAGS = {"table", "ref", "references", "gallery", "math", "timeline", "imagemap", "source", "syntaxhighlight"}


def dump_path() -> Path:
    """Where the dump lies. gensim is not imported: that takes seconds."""
    spec = find_spec("gensim")
    if spec is None or spec.origin is None:
        raise InputError("the embedded corpus comes with gensim, which is not installed: pip install gensim")
    path = Path(spec.origin).parent / DUMP
    if not path.is_file():
        raise InputError(f"this version of gensim carries no {DUMP}: install gensim 4.4")
    return path


def articles() -> Iterator[tuple[str, str]]:
    """Title and text of each article, in the order of the dump: 106 of its 206 pages, the others being redirects."""
    with bz2.open(dump_path()) as dump:
        for _, element in ElementTree.iterparse(dump):
            namespace, _, tag = element.tag.rpartition("}")
            if tag != "page":
                continue
            prefix = namespace + "}"
            if element.find(f"{prefix}redirect") is None:
                title = element.findtext(f"{prefix}title") or ""
                yield title, plain_text(element.findtext(f"{prefix}revision/{prefix}text") or "")
            element.clear()


def plain_text(markup: str) -> str:
    """The prose of an article: a paragraph or heading a line, without tables, footnotes, images and lists of links."""
    code = mwparserfromhell.parse("\n".join(_prose_sections(markup)))
    for tag in code.filter_tags(matches=lambda node: str(node.tag).lower() in NO_PROSE_TAGS):
        _remove(code, tag)
    for link in code.filter_wikilinks(matches=_is_media):
        _remove(code, link)
    lines = (_clean(line) for line in code.strip_code(keep_template_params=False).splitlines())
    return "\n".join(line for line in lines if line)


def _prose_sections(markup: str) -> Iterator[str]:
    """The lines of an article, without the sections that hold no prose, their subsections included."""
    dropped = 0  # the depth of the heading that is being dropped; 0 for none
    for line in markup.splitlines():
        heading = re.match(r"(={2,6})\s*(.*?)\s*\1\s*$", line)
        if heading and (not dropped or len(heading[1]) <= dropped):
            dropped = len(heading[1]) if heading[2].lower() in NO_PROSE else 0
        if not dropped:
            yield line


def _is_media(link: Wikilink) -> bool:
    """Images, categories and the same article in other languages; ``[[:File:X]]`` is an ordinary link to one."""
    namespace = str(link.title).partition(":")
    return bool(namespace[1]) and (namespace[0].strip().lower() in ("file", "image", "category") or not link.text)


def _remove(code: Wikicode, node: Tag | Wikilink) -> None:
    """Remove a node, unless it went with another that held it."""
    try:
        code.remove(node)
    except ValueError:
        return


def _clean(line: str) -> str:
    """What the removal of templates leaves behind: empty brackets, doubled blanks, blanks before a comma."""
    line = re.sub(r"</?ref[^>]*>|\[\[.*?\]\]|\{\{.*?\}\}|'{2,}", "", line.replace("\xa0", " "))
    line = re.sub(r"\([\s;,:]*", "(", line)
    line = re.sub(r"[\s;,]*\)", ")", line).replace("()", "")
    line = re.sub(r"\s+([,.;:?!)])", r"\1", line)
    line = re.sub(r"[ \t]+", " ", line).strip()
    # list marks and what is left of a table or an image
    return "" if re.match(r"^[|!{}]|^thumb\||^\W*$", line) else line.lstrip("*#:; ")
