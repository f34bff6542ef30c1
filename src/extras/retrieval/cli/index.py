"""rag index, rag delete: make an index, add documents to it, and take some out of it."""

from pathlib import Path

from src.cli.verb import NonNegativeFloat, Positive
from src.errors import InputError
from src.extras.retrieval.index_files import Kind, Settings
from src.files import counted

WORDS_PASSAGE = 100  # words of a passage, where there is no encoder that says how many tokens it reads
TOKENS_PASSAGE = 126


def index(
    input_: str,
    output: Path,
    encoder: str | None = None,
    vectors: Kind = "flat",
    passage: Positive | None = None,
    overlap: int = 32,
    stemmer: str = "english",
    name: str | None = None,
    text_column: str = "text",
    delimiter: str | None = None,
    encoding: str | None = None,
    max_malformed: NonNegativeFloat = 0.05,
    device: str = "cpu",
) -> None:
    """Make an index of documents, or add to one: all of them, or none if it is stopped.

    Args:
        input_: a file or folder of .txt, .md, .html, .pdf, .docx; a .jsonl, .csv, .parquet; wikipedia; or a hub dataset
        output: the folder of the index; added to, if it is there
        encoder: a checkpoint of a BERT or a retriever; without: BM25 alone
        vectors: exact, by a graph, by cells
        passage: tokens of a passage (126; 100 words without an encoder)
        overlap: tokens that a passage has in common with the next
        stemmer: language of BM25's words, or none
        name: configuration of a hub dataset
        text_column: the column of the text
        delimiter: between the fields of a table; by its ending and its header
        encoding: of texts, tables and JSON, such as cp1252; UTF-8
        max_malformed: fraction of rows to leave out
        device: cpu, cuda, cuda:1, mps, ...
    """
    # with Lightning and torch, for which help does not wait
    from src.data.malformed import Reading
    from src.encoder import load_encoder
    from src.extras.retrieval import changing
    from src.extras.retrieval.documents import read_documents
    from src.extras.retrieval.index import Index
    from src.extras.retrieval.lexical import Words

    model = load_encoder(encoder, device) if encoder else None
    length = passage or (min(TOKENS_PASSAGE, model.max_tokens) if model else WORDS_PASSAGE)
    if model and length > model.max_tokens:
        raise InputError(f"--passage {length} is more than the {model.max_tokens} tokens that the encoder reads")
    if not 0 <= overlap < length:
        raise InputError(f"--overlap {overlap} must be at least 0 and less than a passage, {length}")
    Words(stemmer)  # refuses an unknown one before anything is read
    checksum, dimension = (model.checksum(), model.dimension) if model else (None, None)
    settings = Settings(encoder, checksum, dimension, length, overlap, vectors, stemmer)

    class OfIndex(Reading):
        def option(self, name: str) -> str:
            return f"--{name.replace('_', '-')}"

    reading = OfIndex(False, max_malformed, delimiter, encoding)
    documents = read_documents(input_, name, text_column, Path(".cache"), reading)
    added = changing.add(output, documents, settings, model)
    made = Index(output)
    notes = {"new": added.new, "replaced": added.replaced, "there already": added.same, "without words": added.empty}
    print(f"{input_}: " + ", ".join(f"{n:,} {what}" for what, n in notes.items() if n or what == "new"))
    print(f"{output}: {counted(len(made.documents()), 'documents')}, {counted(len(made), 'passages')}")


def delete(index: Path, source: list[str]) -> None:
    """Delete documents from an index, by their sources.

    Args:
        index: the folder of the index
        source: of a document, as search shows it; repeat it for several
    """
    from src.extras.retrieval import changing

    left = changing.delete(index, source)
    print(f"{index}: {counted(len(set(source)), 'documents')} deleted, {counted(left, 'passages')} left")
