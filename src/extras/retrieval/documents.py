"""Documents from anywhere: files of text, Markdown, HTML, PDF and Word, tables, data sets, the embedded articles."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from src.data import embedded
from src.data.corpora import EMBEDDED
from src.data.malformed import DEFAULT, Malformed, Reading
from src.data.progress import announce, with_progress
from src.data.sources import COMPANIONS, FORMATS, check_columns, format_of, load_rows, locate, walk
from src.errors import InputError
from src.extras.retrieval.passages import Document
from src.files import UTF8, check_file, counted, decode, open_binary

# what begins a line of its own in HTML, and what is no text
HTML_BLOCKS = re.compile(
    r"^(address|article|aside|blockquote|br|dd|div|dl|dt|fieldset|figcaption|figure|footer|form|h[1-6]|header|hr|li|main|"
    r"nav|ol|p|pre|section|table|td|th|title|tr|ul)$"
)
HTML_NO_TEXT = ("script", "style", "noscript", "template")
SHOWN = 3  # of the files that cannot be read


def read_documents(
    source: str, name: str | None, text_column: str, cache_dir: Path, reading: Reading = DEFAULT
) -> Iterator[Document]:
    """Read the documents of a source that have any text.

    Args:
        source: a file or folder of .txt, .md, .html, .pdf and .docx files, a document each; a .json, .jsonl, .csv,
            .tsv or .parquet file, a folder of such files and none of text, or a data set on the hub, a document a row,
            named by a column ``source`` if there is one; or ``wikipedia``, the articles that install with the project.
        name: configuration of a hub dataset.
        text_column: the column that holds the text.
        cache_dir: where data sets are kept.
        reading: how texts, tables and JSON are read, and what is done about malformed rows.
    """
    if not source.strip():  # the path of which would be the current folder
        raise InputError(f"the source of the documents is {source!r}: name a file, a folder, a data set, or {EMBEDDED}")
    path = Path(source).expanduser()
    if source == EMBEDDED:
        yield from (Document(title, text) for title, text in embedded.articles())
    elif path.is_dir():
        yield from _from_folder(path, text_column, cache_dir, reading)
    elif reader := READERS.get(path.suffix.lower()):
        yield Document(path.name, reader(path, reading))
    elif path.is_file() and format_of(path) in (None, "text"):
        raise InputError(f"{source} is no kind of file that can be read: give {', '.join([*READERS, *TABLES])}")
    else:
        yield from _from_table(source, Path(source).name, name, text_column, cache_dir, reading)


def _from_folder(folder: Path, text_column: str, cache_dir: Path, reading: Reading) -> Iterator[Document]:
    """Read the files of text in a folder and below, or without any the rows of its tables.

    Other files, and those that cannot be read, are left out, counted and told.
    """
    files = walk(folder)
    if not files:
        raise InputError(f"the folder {folder} is empty: put {', '.join(READERS)} files into it")
    tables = [file for file in files if format_of(file) not in (None, "text")]
    texts = [file for file in files if file.suffix.lower() in READERS]
    if tables and all(file.name in COMPANIONS for file in texts):
        texts = []
    if not (tables or texts):
        raise InputError(f"the folder {folder} has no {', '.join(READERS)} files: it has {files[0].name}")
    yield from _from_files(texts, folder, reading)
    for file in () if texts else tables:
        yield from _from_table(str(file), file.relative_to(folder).as_posix(), None, text_column, cache_dir, reading)
    if left_out := [file.relative_to(folder).as_posix() for file in files if file not in (texts or tables)]:
        kinds = ", ".join(READERS) if texts else ", ".join(TABLES)
        endings = Counter(Path(name).suffix.lower() or "without ending" for name in left_out)
        counts = ", ".join(f"{n:,} {ending}" for ending, n in endings.most_common())
        more = ", ..." if len(left_out) > 1 else ""
        announce(f"left out of {folder}: {counts}, which are not read: not {kinds} ({left_out[0]}{more})")


def _from_files(files: list[Path], folder: Path, reading: Reading) -> Iterator[Document]:
    """Read files of text; those that cannot be read are left out, if there are others, counted and told."""
    unreadable: list[InputError] = []
    for file in with_progress(files, f"reading {folder}"):
        try:
            text = READERS[file.suffix.lower()](file, reading)
        except InputError as error:
            unreadable.append(error)
        else:
            yield Document(file.relative_to(folder).as_posix(), text)
    if unreadable:
        if len(unreadable) == len(files):
            raise unreadable[0]
        shown = "; ".join(map(str, unreadable[:SHOWN])) + ("; ..." if len(unreadable) > SHOWN else "")
        announce(f"left out of {folder}: {counted(len(unreadable), 'files')} that cannot be read ({shown})")


def _from_table(
    source: str, label: str, name: str | None, text_column: str, cache_dir: Path, reading: Reading
) -> Iterator[Document]:
    """Read the rows of a table that have text, or nothing where it should be; the others are left out and counted."""
    malformed, n_rows = Malformed(source, reading), 0
    for split, rows in load_rows(locate(source), cache_dir, reading, (text_column,), name=name).items():
        check_columns(source, rows, [text_column])
        for i, row in enumerate(rows):
            n_rows += 1
            given, text = row.get("source"), row[text_column]
            if text is None or isinstance(text, str):
                yield Document(f"{label}:{split}:{i}" if given in (None, "") else str(given), text or "")
            else:
                malformed.add("wrong type", f"row {i + 1:,}", text)
    if n_rows and malformed.counts.total() == n_rows:
        raise InputError(f"column {text_column!r} of {source} holds no text: name another one by --text-column")
    malformed.announce()


# ---- files


def _read_text(path: Path, reading: Reading) -> str:
    encoding = reading.encoding or UTF8
    reading.check_text(path)
    with open_binary(path) as file:
        return decode(file.read(), encoding)


def _read_html(path: Path, reading: Reading) -> str:
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(_read_text(path, reading), "html.parser")
    for element in soup.find_all(list(HTML_NO_TEXT)):
        element.decompose()
    for element in soup.find_all(HTML_BLOCKS):
        element.insert_before("\n")
        element.insert_after("\n")
    lines = (re.sub(r"[^\S\n]+", " ", line).strip() for line in soup.get_text().split("\n"))
    return "\n".join(line for line in lines if line)


def _read_pdf(path: Path, reading: Reading) -> str:
    from pypdf import PdfReader

    check_file(path, is_text=False)
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    try:
        return "\n".join(page.extract_text() for page in PdfReader(path).pages)
    except Exception as error:  # of many kinds, where a file is damaged
        raise InputError(f"the file {path} is no PDF that can be read: {error}") from error


def _read_docx(path: Path, reading: Reading) -> str:
    try:
        import docx
    except ModuleNotFoundError as error:
        raise InputError(f"the file {path} needs a package that is not installed: pip install python-docx") from error

    check_file(path, is_text=False)
    try:
        parts = docx.Document(str(path)).iter_inner_content()
        return "\n".join(line for part in parts for line in _docx_lines(part))
    except Exception as error:  # of many kinds, where a file is damaged
        raise InputError(f"the file {path} is no Word document that can be read: {error}") from error


def _docx_lines(part: Any) -> Iterator[str]:
    """Yield a paragraph, or each row of a table."""
    if hasattr(part, "rows"):
        yield from ("\t".join(cell.text for cell in row.cells) for row in part.rows)
    else:
        yield part.text


READERS: dict[str, Callable[[Path, Reading], str]] = {
    ".txt": _read_text,
    ".md": _read_text,
    ".html": _read_html,
    ".htm": _read_html,
    ".pdf": _read_pdf,
    ".docx": _read_docx,
}
TABLES = [ending for ending, kind in FORMATS.items() if kind != "text"]
