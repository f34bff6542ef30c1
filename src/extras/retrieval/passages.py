"""Documents cut into passages, by the tokens of an encoder or by words, and the tables that hold them."""

from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from src.data.sentences import UNSPACED
from src.extras.retrieval.dense import Vectors
from src.extras.retrieval.documents import Document

Span = tuple[int, int]  # the first character of a passage in its document, and the one after its last
DOCUMENT_SCHEMA = pa.schema({"source": pa.string(), "digest": pa.string(), "text": pa.large_string()})
PASSAGE_SCHEMA = pa.schema(
    {"document": pa.int32(), "start": pa.int64(), "end": pa.int64(), "words": pa.large_list(pa.string())}
)


class Passage(NamedTuple):
    """A piece of a document: ``text`` is that of the document from character ``start`` to ``end``."""

    source: str
    start: int
    end: int
    text: str


def word_tokenizer() -> Tokenizer:
    """Make a tokenizer of words and punctuation marks: what passages are counted in where there is no encoder.

    In a script that puts no space between words, each letter is a token.
    """
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    letters = pre_tokenizers.Split(Regex(rf"{UNSPACED}\p{{M}}*"), "isolated")
    tokenizer.normalizer = normalizers.Sequence([])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([letters, pre_tokenizers.BertPreTokenizer()])
    return tokenizer


def split_passages(texts: list[str], tokenizer: Tokenizer, size: int, overlap: int) -> list[list[Span]]:
    """Cut each document into passages of up to ``size`` tokens that share ``overlap`` with the one before.

    Passages begin and end between words, unless one word is longer than a passage. Every word of a document is in one
    of them; a document without words has none.
    """
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [_split(encoding.offsets, encoding.word_ids, size, overlap) for encoding in encodings]


def _split(offsets: list[Span], words: list[int | None], size: int, overlap: int) -> list[Span]:
    # where a passage may be cut: before the first token of each word
    may_cut = {i for i in range(len(words)) if i == 0 or words[i] is None or words[i] != words[i - 1]}
    spans, first = [], 0
    while first < len(offsets):
        last = min(first + size, len(offsets))
        if last < len(offsets):
            last = next((i for i in range(last, first, -1) if i in may_cut), last)
        spans.append((offsets[first][0], offsets[last - 1][1]))
        if last == len(offsets):
            break
        first = next((i for i in range(max(last - overlap, first + 1), last) if i in may_cut), last)
    return spans


def digest(text: str) -> str:
    """Hash a text, to know it again."""
    return sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Content:
    """Documents and their passages, as a segment of an index is written from them.

    Args:
        documents: columns ``source``, ``digest`` and ``text``.
        passages: columns ``document`` (its row), ``start``, ``end`` and ``words``.
        vectors: (passages, dimension); None where there is no encoder.
    """

    documents: pa.Table
    passages: pa.Table
    vectors: Vectors | None

    @classmethod
    def of(
        cls, documents: list[Document], spans: list[list[Span]], words: list[list[str]], vectors: Vectors | None
    ) -> "Content":
        """Make the tables of documents and the spans of their passages; words and vectors of all passages in order."""
        sources, texts = [document.source for document in documents], [document.text for document in documents]
        flat = [(i, start, end) for i, of_one in enumerate(spans) for start, end in of_one]
        columns = {name: [row[i] for row in flat] for i, name in enumerate(("document", "start", "end"))}
        digests = [digest(text) for text in texts]
        table = pa.table({"source": sources, "digest": digests, "text": texts}, DOCUMENT_SCHEMA)
        return cls(table, pa.table({**columns, "words": words}, PASSAGE_SCHEMA), vectors)

    @property
    def n_alive(self) -> int:
        """How many passages there are, none of which is deleted."""
        return self.passages.num_rows

    def words(self) -> list[list[str]]:
        """The words of each passage."""
        return self.passages["words"].to_pylist()

    def content(self) -> "Content":
        """As of a segment: itself."""
        return self

    def joined(self, other: "Content") -> "Content":
        """Put the documents of another behind these."""
        rows = pa.array(other.passages["document"].to_numpy() + self.documents.num_rows, pa.int32())
        passages = other.passages.set_column(0, "document", rows)
        vectors = None
        if self.vectors is not None and other.vectors is not None:
            vectors = np.concatenate([self.vectors, other.vectors])
        documents = pa.concat_tables([self.documents, other.documents])
        return Content(documents, pa.concat_tables([self.passages, passages]), vectors)
