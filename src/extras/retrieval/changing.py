"""Adding documents to an index and deleting them.

Documents are added as a new segment; deleting marks them. Both leave the vectors that are there as they are. So that
segments stay few, one that is not larger than twice the next is joined with it, and one of which more than half is
deleted is written anew: the vectors of a document are copied a logarithmic number of times, and never computed again.
BM25 weighs words by all passages, so that its scores are computed anew, from the words that the segments hold.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from src.atomic import checksums, sync_folder
from src.encoder import Encoder
from src.errors import InputError
from src.extras.retrieval.documents import Document
from src.extras.retrieval.index import Index
from src.extras.retrieval.lexical import Words, write_bm25
from src.extras.retrieval.manifest import MANIFEST, Manifest, Part, Settings, write_manifest, writing
from src.extras.retrieval.passages import split_passages, word_tokenizer
from src.extras.retrieval.segment import Content, Segment, digest, join, make_content, write_segment

GROUP = 256  # documents that are cut together


class Added(NamedTuple):
    """How many documents were new, replaced an older version, were there already, or had no words."""

    new: int
    replaced: int
    same: int
    empty: int


def add(folder: Path, documents: Iterable[Document], settings: Settings, encoder: Encoder | None) -> Added:
    """Add documents to an index, which is made if there is none; all of them, or, if the process is killed, none.

    A document whose source is there is replaced if its text is another, and left alone if not.

    Raises:
        InputError: the index was made with other settings, or there is no document with any words.
    """
    with writing(folder):
        is_new = not (folder / MANIFEST).is_file()
        old = Index(folder) if not is_new else None
        if old and replace(old.settings, encoder=settings.encoder) != settings:
            raise InputError(f"the index {folder} was made with other settings: {_difference(old.settings, settings)}")
        segments = old.segments if old else []
        fresh, counts = _sort_out(documents, _places(segments))
        content, empty = _prepare(fresh, settings, encoder)
        if old is None and len(content) == 0:
            raise InputError("there is no document with any words in it: nothing was indexed")
        if len(content) or counts["replaced"]:
            generation = old.manifest.generation + 1 if old else 1
            _commit(folder, old.settings if old else settings, generation, [*segments, content])
    return Added(len(fresh) - empty - counts["replaced"], counts["replaced"], counts["same"], empty)


def _difference(old: Settings, new: Settings) -> str:
    name = next(name for name in vars(old) if name != "encoder" and getattr(old, name) != getattr(new, name))
    return f"its {name} is {getattr(old, name)}, not {getattr(new, name)}"


def _places(segments: list[Segment]) -> dict[str, tuple[Segment, int]]:
    """Segment and row of each document by its source."""
    return {source: (segment, i) for segment in segments for source, i in segment.documents().items()}


def _sort_out(
    documents: Iterable[Document], there: dict[str, tuple[Segment, int]]
) -> tuple[list[Document], dict[str, int]]:
    """The documents that are not there in this version; older versions are marked as deleted."""
    fresh: dict[str, Document] = {}
    counts = {"replaced": 0, "same": 0}
    for document in documents:
        if document.source in fresh:
            raise InputError(f"two documents are named {document.source!r}: give them names of their own")
        segment, i = there.get(document.source, (None, 0))
        if segment is not None and segment.digests[i] == digest(document.text):
            counts["same"] += 1
            continue
        if segment is not None:
            segment.deleted.append(i)
            counts["replaced"] += 1
        fresh[document.source] = document
    return list(fresh.values()), counts


def _prepare(documents: list[Document], settings: Settings, encoder: Encoder | None) -> tuple[Content, int]:
    """The passages of documents with their words and vectors, and how many documents have none."""
    tokenizer = encoder.tokenizer if encoder else word_tokenizer()
    spans = [
        span
        for group in _groups(documents)
        for span in split_passages([d.text for d in group], tokenizer, settings.passage_len, settings.overlap)
    ]
    kept = [(document, of_one) for document, of_one in zip(documents, spans, strict=True) if of_one]
    texts = [document.text[start:end] for document, of_one in kept for start, end in of_one]
    vectors = encoder.vectors(texts) if encoder else None
    sources = [document.source for document, _ in kept]
    content = make_content(
        sources, [d.text for d, _ in kept], [s for _, s in kept], Words(settings.stemmer).of(texts), vectors
    )
    return content, len(documents) - len(kept)


def _groups(documents: list[Document]) -> Iterator[list[Document]]:
    remaining = iter(documents)
    while group := list(islice(remaining, GROUP)):
        yield group


def delete(folder: Path, sources: list[str]) -> int:
    """Delete documents by their sources; gives how many passages are left.

    Raises:
        InputError: there is no document of one of the names; nothing is deleted then.
    """
    with writing(folder):
        index = Index(folder)
        there = _places(index.segments)
        if missing := [source for source in sources if source not in there]:
            raise InputError(f"the index {folder} has no document {missing[0]!r}: nothing was deleted")
        for segment, i in (there[source] for source in set(sources)):
            segment.deleted.append(i)
        _commit(folder, index.settings, index.manifest.generation + 1, list(index.segments))
    return len(Index(folder))


def _commit(folder: Path, settings: Settings, generation: int, items: list[Segment | Content]) -> None:
    """Write what is new, and then the manifest that names it."""
    parts, words = [], []
    for n, item in enumerate(_settled(items)):
        if isinstance(item, Segment):
            parts.append(replace(item.part, deleted=item.deleted))
            words += item.words()
        else:
            name = f"segment-{generation}-{n}"
            (folder / name).mkdir()
            write_segment(item, settings.kind, folder / name)
            parts.append(_finished(folder / name))
            words += item.passages["words"].to_pylist()
    lexical = None
    if any(words):
        (folder / f"bm25-{generation}").mkdir()
        write_bm25(words, folder / f"bm25-{generation}")
        lexical = _finished(folder / f"bm25-{generation}")
    write_manifest(folder, Manifest(settings, generation, parts, lexical))


def _finished(folder: Path) -> Part:
    sync_folder(folder)
    return Part(folder.name, checksums(folder.iterdir()))


def _settled(items: list[Segment | Content]) -> list[Segment | Content]:
    """The segments as they are to be: see the module."""
    settled: list[Segment | Content] = []
    for item in items:
        if isinstance(item, Segment) and 2 * item.alive().sum() < len(item):
            item = item.content()
        if len(item):
            settled.append(item)
        while len(settled) > 1 and _size(settled[-2]) <= 2 * _size(settled[-1]) and _is_new(settled):
            second, first = _content(settled.pop()), _content(settled.pop())
            settled.append(join(first, second))
    return settled


def _is_new(settled: list[Segment | Content]) -> bool:
    """Whether one of the last two is to be written anyway: without a change there is nothing to join."""
    return any(isinstance(item, Content) for item in settled[-2:])


def _size(item: Segment | Content) -> int:
    return int(item.alive().sum()) if isinstance(item, Segment) else len(item)


def _content(item: Segment | Content) -> Content:
    return item.content() if isinstance(item, Segment) else item
