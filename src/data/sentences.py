"""Documents to sentences, by their punctuation."""

import regex

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
# letters of the scripts that put no space between words
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
# Where a sentence may end: its marks (of any script: UAX 29), closing quotes and brackets, and space, before what may
# begin another. A quotation mark that opens in one language closes in another, where space is behind it.
END = regex.compile(
    r"""(?P<marks>[\p{Sentence_Break=STerm}.．]+)["'\p{Pf}\p{Pe}]*(?P<space>\p{Pi}*\s+)?"""
    r"""(?=["'\p{Pi}\p{Pf}\p{Ps}]*(?P<next>\w)?)"""
)
# Thai and Lao have no marks, and a space instead
SPACE = regex.compile(r"(?<=[\p{Thai}\p{Lao}])\s+(?=[\p{Thai}\p{Lao}])")


def split_sentences(document: str) -> list[str]:
    """The sentences of a document in order, each with its punctuation, none empty.

    A line break always ends a sentence: a heading and an item of a list are sentences of their own.
    """
    return [sentence for line in document.splitlines() for sentence in _split_line(line.strip())]


def _split_line(line: str) -> list[str]:
    sentences, start = [], 0
    for end in END.finditer(line):
        if _ends_sentence(line[start : end.start()], end):
            sentences.append(line[start : end.end()].rstrip())
            start = end.end()
    if start < len(line):
        sentences.append(line[start:])
    return sentences if line.isascii() else [part for sentence in sentences for part in SPACE.split(sentence)]


def _ends_sentence(before: str, end: regex.Match[str]) -> bool:
    """Whether marks that follow ``before`` end a sentence, by what is on either side of them."""
    marks, following = end["marks"], end["next"] or ""
    is_number = before[-1:].isdigit()
    if not marks.isascii():
        return not (marks == "．" and is_number and following.isdigit())
    # where a script has no spaces its marks need none; but what follows may be a name such as .NET
    if regex.match(UNSPACED, following) or ("." not in marks and regex.match(UNSPACED, before[-1:])):
        return not (marks == "." and is_number)  # the number of an item
    begins = following.isupper() or following.isdigit() or (_is_caseless(following) and not before[-1:].islower())
    return begins and end["space"] is not None and not _abbreviated(before, end[0])


def _is_caseless(letter: str) -> bool:
    """Whether a letter is of a script without capitals, such as Arabic, where any word may begin a sentence."""
    return letter.isalpha() and letter.lower() == letter.upper()


def _abbreviated(before: str, mark: str) -> bool:
    """Whether a mark that follows ``before`` belongs to an abbreviation."""
    word = before.rpartition(" ")[2].lstrip("\"'“‘([").lower()
    return mark.strip() == "." and (word in ABBREVIATIONS or (len(word) == 1 and word.isalpha()))
