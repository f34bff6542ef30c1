"""Adding documents to an index and deleting them.

Documents are added as a new segment; deleting marks them. Both leave the vectors that are there as they are. So that
segments stay few, one that is not larger than twice the next is merged with it, and one of which more than half is
deleted is written anew: the vectors of a document are copied a logarithmic number of times, and never computed again.
BM25 weighs words by all passages, so that its scores are computed anew, from the words that the segments hold.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from src.atomic import checksums, sync_folder
from src.encoder import Encoder
from src.errors import InputError
from src.extras.retrieval.index import Content, Index, Segment, digest, write_segment
from src.extras.retrieval.index_files import MANIFEST, Manifest, Part, Settings, write_manifest, writing
from src.extras.retrieval.lexical import Words, write_bm25
from src.extras.retrieval.passages import Document, Span, split_passages, word_tokenizer

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
    """
    with writing(folder):
        old = Index(folder) if (folder / MANIFEST).is_file() else None
        if old and replace(old.settings, encoder=settings.encoder) != settings:
            name = next(n for n in vars(settings) if n != "encoder" and vars(old.settings)[n] != vars(settings)[n])
            difference = f"its {name} is {vars(old.settings)[name]}, not {vars(settings)[name]}"
            raise InputError(f"the index {folder} was made with other settings: {difference}")
        segments = old.segments if old else []
        fresh, replaced, same = _sort_out(documents, _rows(segments))
        content, empty = _prepare(fresh, settings, encoder)
        if old is None and content.n_alive == 0:
            raise InputError("there is no document with any words in it: nothing was indexed")
        if content.n_alive or replaced:
            generation = old.manifest.generation + 1 if old else 1
            _commit(folder, old.settings if old else settings, generation, [*segments, content])
    return Added(len(fresh) - empty - replaced, replaced, same, empty)


def _rows(segments: list[Segment]) -> dict[str, tuple[Segment, int]]:
    """Map each document by its source to its segment and row."""
    return {source: (segment, i) for segment in segments for source, i in segment.documents().items()}


def _sort_out(documents: Iterable[Document], there: dict[str, tuple[Segment, int]]) -> tuple[list[Document], int, int]:
    """Find the documents that are not there in this version, and mark older versions as deleted.

    Returns:
        The documents, how many of them replace another version, and how many more are there already.
    """
    fresh: dict[str, Document] = {}
    replaced = same = 0
    for document in documents:
        if document.source in fresh:
            raise InputError(f"two documents are named {document.source!r}: give them names of their own")
        segment, i = there.get(document.source, (None, 0))
        if segment is not None and segment.digests[i] == digest(document.text):
            same += 1
            continue
        if segment is not None:
            segment.deleted.append(i)
            replaced += 1
        fresh[document.source] = document
    return list(fresh.values()), replaced, same


def _prepare(documents: list[Document], settings: Settings, encoder: Encoder | None) -> tuple[Content, int]:
    """Cut documents into passages with words and vectors; gives how many documents have none, too."""
    tokenizer = encoder.tokenizer if encoder else word_tokenizer()
    kept: list[Document] = []
    spans: list[list[Span]] = []
    for i in range(0, len(documents), GROUP):
        group = documents[i : i + GROUP]
        cut = split_passages([d.text for d in group], tokenizer, settings.passage_len, settings.overlap)
        kept += [document for document, of_one in zip(group, cut, strict=True) if of_one]
        spans += filter(None, cut)
    texts = [document.text[start:end] for document, of_one in zip(kept, spans, strict=True) for start, end in of_one]
    vectors = encoder.vectors(texts, "document") if encoder else None
    return Content.of(kept, spans, Words(settings.stemmer).of(texts), vectors), len(documents) - len(kept)


def delete(folder: Path, sources: list[str]) -> int:
    """Delete documents by their sources, all or none of them; gives how many passages are left."""
    with writing(folder):
        index = Index(folder)
        there = _rows(index.segments)
        if missing := [source for source in sources if source not in there]:
            raise InputError(f"the index {folder} has no document {missing[0]!r}: nothing was deleted")
        for segment, i in (there[source] for source in set(sources)):
            segment.deleted.append(i)
        _commit(folder, index.settings, index.manifest.generation + 1, list(index.segments))
    return len(Index(folder))


def _commit(folder: Path, settings: Settings, generation: int, items: list[Segment | Content]) -> None:
    """Write what is new, and then the manifest that names it."""
    parts, words = [], []
    for n, item in enumerate(_merged(items)):
        words += item.words()
        if isinstance(item, Segment):
            parts.append(replace(item.part, deleted=item.deleted))
        else:
            new = folder / f"segment-{generation}-{n}"
            new.mkdir()
            write_segment(item, settings.kind, new)
            parts.append(_finished(new))
    lexical = None
    if any(words):
        new = folder / f"bm25-{generation}"
        new.mkdir()
        write_bm25(words, new)
        lexical = _finished(new)
    write_manifest(folder, Manifest(settings, generation, parts, lexical))


def _finished(folder: Path) -> Part:
    sync_folder(folder)
    return Part(folder.name, checksums(folder))


def _merged(items: list[Segment | Content]) -> list[Segment | Content]:
    """Merge and rewrite segments: see the module."""
    merged: list[Segment | Content] = []
    for item in items:
        if isinstance(item, Segment) and 2 * item.n_alive < len(item):
            item = item.content()
        if item.n_alive:
            merged.append(item)
        # without a change there is nothing to merge: one of the two is to be written anyway
        while (
            len(merged) > 1
            and merged[-2].n_alive <= 2 * merged[-1].n_alive
            and any(isinstance(last, Content) for last in merged[-2:])
        ):
            second, first = merged.pop().content(), merged.pop().content()
            merged.append(first.merged(second))
    return merged
