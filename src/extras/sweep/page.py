"""The report as one page by itself: plots that say what is under the pointer, and tables that can be sorted."""

import html
import re
from pathlib import Path

from markdown_it import MarkdownIt

TEMPLATE = Path(__file__).with_name("page.html")
IMAGE = re.compile(r'<img src="([^"]+)\.png" alt="([^"]*)" */?>')


def write_page(report: str, folder: Path) -> Path:
    """Write ``report.html`` of a report in Markdown, with its plots, which lie as SVG files in the folder, within it.

    Nothing is loaded from elsewhere, and no HTML is taken from labels.
    """
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(report)
    title = html.escape(report.partition("\n")[0].removeprefix("# "))
    page = TEMPLATE.read_text(encoding="utf-8")
    for mark, text in (
        ("{{title}}", title),
        ("{{body}}", IMAGE.sub(lambda found: _plot(folder, *found.groups()), body)),
    ):
        page = page.replace(mark, text, 1)
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _plot(folder: Path, name: str, alt: str) -> str:
    svg = (folder / f"{name}.svg").read_text(encoding="utf-8")
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", svg[svg.index("<svg") :])  # several are on a page
    return f'<figure role="img" aria-label="{alt}">{svg}</figure>'
