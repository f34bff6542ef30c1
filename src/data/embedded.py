"""The corpora that come with the project: English articles, labelled film reviews, and English-French translations.

The articles are whole ones of Wikipedia, and the reviews those of Pang and Lee (2005), out of gensim's wheel. The
translations are by people, out of the message catalogues of seven programs under BSD and MIT licences, each a wheel of
a fixed version and checksum, which is downloaded and read as an archive; nothing of it is installed or run.
"""

import bz2
import gettext
import io
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import mwparserfromhell
from mwparserfromhell.nodes import Tag, Wikilink
from mwparserfromhell.wikicode import Wikicode

from src.errors import InputError

DUMP = "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"

# lists of links and sources, not prose
NO_PROSE = {"bibliography", "citations", "external links", "further reading", "gallery", "notes", "references"}
NO_PROSE |= {"notes and references", "see also", "sources", "works cited"}
# tags whose content is no prose: tables, footnotes, formulas, source code
NO_PROSE_TAGS = {"table", "ref", "references", "gallery", "math", "timeline", "imagemap", "source", "syntaxhighlight"}
# 100 negative and 100 positive sentences, in fastText's format
REVIEWS = "test/test_data/pang_lee_polarity.cor"
# requirement -> sha256 of its wheel
WHEELS = {
    "indico==3.2.9": "194d2e31ccaabd2b9af7809e67d60d942faee35a6b4de36f0c2c280a32ed84c3",
    "jupyterlab-language-pack-fr-FR==4.5.post3": "9f6ce9d4e64b367ff084a2313af29d6ad8a02d1d08000f3e6c53e2856fa9a11f",
    "spyder==6.1.8": "4da836742a7138c93392a8a0bd1a5ff40002cf92d217ef0e7bed11b522322f90",
    "wagtail==8.0.1": "1e6ad5c7891a54efce1400e168298b5a2cc343b642cee89c31bf5ec30c98b26c",
    "Django==5.2": "91ceed4e3a6db5aedced65e3c8f963118ea9ba753fc620831c77074e620e7d83",
    "Sphinx==9.0.4": "5bebc595a5e943ea248b99c13814c1c5e10b3ece718976824ffa7959ff95fffb",
    "django-cms==5.1.3": "acf31919aab389d2bea253efa97a901bf55e96046a252f23a7a742e495848a5e",
}
LANGUAGES = ("en", "fr")
CATALOGUE = re.compile(r"(^|/)fr(_FR)?/LC_MESSAGES/[^/]+\.mo$")
CONTEXT = "\x04"  # stands between the context of a message and the message
# what a program puts values, markup or addresses in the place of
PLACEHOLDER = re.compile(r"%[-#0+]*\d*(\.\d+)?[a-zA-Z\d]|%\([^)]*\)|%%|[{}<>`\\|]|\$\w|&\w+;|https?:|\w_\w|\[\w*\]")
ACCELERATOR = re.compile(r"(?<!\w)&(?=\w)|&(?=[a-z])")  # marks the key of a menu entry; "R&D" has none


def _gensim_file(name: str) -> Path:
    """Find a file of gensim's, which is not imported: that takes seconds."""
    spec = find_spec("gensim")
    if spec is None or spec.origin is None:
        raise InputError("the embedded corpora come with gensim, which is not installed: pip install gensim")
    path = Path(spec.origin).parent / name
    if not path.is_file():
        raise InputError(f"this version of gensim carries no {name}: install gensim 4.4")
    return path


# ---- translations


def download(folder: Path) -> list[Path]:
    """Fetch the wheels into a folder by pip where they are missing, in the order of :data:`WHEELS`."""
    folder.mkdir(parents=True, exist_ok=True)
    requirements = folder / "requirements.txt"
    requirements.write_text("".join(f"{name} --hash=sha256:{digest}\n" for name, digest in WHEELS.items()))
    options = "--quiet --no-deps --only-binary :all: --require-hashes --disable-pip-version-check"
    command = [sys.executable, "-m", "pip", "download", *options.split(), "--dest", str(folder)]
    command += ["--requirement", str(requirements)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = [line for line in result.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise InputError(
            f"pip could not download the translations into {folder}: {reason[-1].strip()}; go online, or give "
            "--data.init_args.source a corpus of your own"
        )
    return [_wheel(folder, name) for name in WHEELS]


def _wheel(folder: Path, requirement: str) -> Path:
    """Find the file of a requirement: wheels spell names in more than one way."""
    name, _, version = requirement.partition("==")
    stem = re.sub(r"[-_.]+", "_", name).lower()
    return next(path for path in folder.glob(f"*-{version}-*.whl") if path.name.lower().startswith(f"{stem}-"))


def messages(wheel: Path) -> Iterator[tuple[str, str]]:
    """Yield the English and French of each message in the French catalogues of a wheel; of plurals, the singular."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(filter(CATALOGUE.search, archive.namelist())):
            catalogue = gettext.GNUTranslations(io.BytesIO(archive.read(name)))
            for key, translation in catalogue._catalog.items():  # type: ignore[attr-defined]
                english, plural = key if isinstance(key, tuple) else (key, 0)
                if english and not plural:
                    yield english.rpartition(CONTEXT)[2], translation


def clean_pairs(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Keep the pairs that are language, each source once.

    Blanks are made single and accelerator marks removed. Left out are messages that are not translated, with
    placeholders or markup, the same in both languages, without a word of letters, and sources that were there before.
    """
    kept: dict[str, tuple[str, str]] = {}
    for pair in pairs:
        english, french = (ACCELERATOR.sub("", " ".join(text.split())) for text in pair)
        is_language = french and re.search(r"[^\W\d_]{2}", english) and not any(map(PLACEHOLDER.search, pair))
        key = english.casefold()
        if is_language and key != french.casefold():
            kept.setdefault(key, (english, french))
    return list(kept.values())


def translations(folder: Path) -> list[tuple[str, str]]:
    """Read all clean English-French pairs of the wheels, downloaded into a folder first."""
    return clean_pairs(pair for wheel in download(folder) for pair in messages(wheel))


# ---- film reviews


def reviews() -> tuple[list[str], list[str]]:
    """Read the texts and the labels of the film reviews."""
    lines = _gensim_file(REVIEWS).read_text(encoding="cp1252").removesuffix("\n").split("\n")
    labels, texts = zip(*(line.removeprefix("__label__").split(" ", 1) for line in lines), strict=True)
    return list(texts), list(labels)


# ---- articles


def articles() -> Iterator[tuple[str, str]]:
    """Yield title and text of each article, in the order of the dump: 106 of its 206 pages, not the redirects."""
    with bz2.open(_gensim_file(DUMP)) as dump:
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
    """Strip an article of its markup, to a paragraph or heading a line; of tables, footnotes, images and link lists."""
    code = mwparserfromhell.parse("\n".join(_prose_sections(markup)))
    for tag in code.filter_tags(matches=lambda node: str(node.tag).lower() in NO_PROSE_TAGS):
        _remove(code, tag)
    for link in code.filter_wikilinks(matches=_is_media):
        _remove(code, link)
    lines = (_clean(line) for line in code.strip_code(keep_template_params=False).splitlines())
    return "\n".join(line for line in lines if line)


def _prose_sections(markup: str) -> Iterator[str]:
    """Yield the lines of an article, without the sections that hold no prose, their subsections included."""
    dropped = 0  # the depth of the heading that is being dropped; 0 for none
    for line in markup.splitlines():
        heading = re.match(r"(={2,6})\s*(.*?)\s*\1\s*$", line)
        if heading and (not dropped or len(heading[1]) <= dropped):
            dropped = len(heading[1]) if heading[2].lower() in NO_PROSE else 0
        if not dropped:
            yield line


def _is_media(link: Wikilink) -> bool:
    """Tell images, categories and the same article in other languages; ``[[:File:X]]`` is an ordinary link to one."""
    namespace = str(link.title).partition(":")
    return bool(namespace[1]) and (namespace[0].strip().lower() in ("file", "image", "category") or not link.text)


def _remove(code: Wikicode, node: Tag | Wikilink) -> None:
    """Remove a node, unless it went with another that held it."""
    try:
        code.remove(node)
    except ValueError:
        return


def _clean(line: str) -> str:
    """Clean a line of what removed templates leave behind: empty brackets, doubled blanks, blanks before a comma."""
    line = re.sub(r"</?ref[^>]*>|\[\[.*?\]\]|\{\{.*?\}\}|'{2,}", "", line.replace("\xa0", " "))
    line = re.sub(r"\([\s;,:]*", "(", line)
    line = re.sub(r"[\s;,]*\)", ")", line).replace("()", "")
    line = re.sub(r"\s+([,.;:?!)])", r"\1", line)
    line = re.sub(r"[ \t]+", " ", line).strip()
    # list marks and what is left of a table or an image
    return "" if re.match(r"^[|!{}]|^thumb\||^\W*$", line) else line.lstrip("*#:; ")
