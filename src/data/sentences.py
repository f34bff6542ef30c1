"""Documents to sentences, by their punctuation."""

import re

# a full stop after these ends no sentence; single letters (initials) and numbers of a list are told apart by their form
ABBREVIATIONS = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "rev",
        "gen",
        "col",
        "lt",
        "sgt",
        "capt",
        "gov",
        "sen",
        "rep",
        "st",
        "mt",
        "jr",
        "sr",
        "vs",
        "etc",
        "e.g",
        "i.e",
        "cf",
        "ca",
        "c",
        "al",
        "no",
        "nos",
        "vol",
        "pp",
        "p",
        "ed",
        "eds",
        "fig",
        "figs",
        "ch",
        "sec",
        "inc",
        "ltd",
        "co",
        "corp",
        "dept",
        "univ",
        "est",
        "approx",
        "jan",
        "feb",
        "mar",
        "apr",
        "jun",
        "jul",
        "aug",
        "sep",
        "sept",
        "oct",
        "nov",
        "dec",
        "u.s",
        "u.k",
    ]
)
# what ends a sentence, its closing quotes and brackets, and space before what may begin another
END = re.compile(r"""[.!?]+["'”’)\]]*\s+(?=["'“‘(\[]*(\w))""")


def split_sentences(document: str) -> list[str]:
    """The sentences of a document in order, each with its punctuation, none empty.

    A line break always ends a sentence: a heading and an item of a list are sentences of their own.
    """
    return [sentence for line in document.splitlines() for sentence in _split_line(line.strip())]


def _split_line(line: str) -> list[str]:
    sentences, start = [], 0
    for end in END.finditer(line):
        begins = end[1].isupper() or end[1].isdigit()
        if begins and not _abbreviated(line[start : end.start()], end[0]):
            sentences.append(line[start : end.end()].rstrip())
            start = end.end()
    return [*sentences, line[start:]] if start < len(line) else sentences


def _abbreviated(before: str, mark: str) -> bool:
    """Whether a mark that follows ``before`` belongs to an abbreviation."""
    word = before.rpartition(" ")[2].lstrip("\"'“‘([").lower()
    return mark.strip() == "." and (word in ABBREVIATIONS or (len(word) == 1 and word.isalpha()))
