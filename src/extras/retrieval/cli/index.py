"""rag index, rag delete: make an index, add documents to it, and take some out of it."""

import argparse
from pathlib import Path
from typing import Any

from src.cli.parser import non_negative, positive
from src.errors import InputError

WORDS_PASSAGE = 100  # words of a passage, where there is no encoder that says how many tokens it reads
TOKENS_PASSAGE = 126


def add_parsers(parts: Any) -> None:
    """The options of `rag index` and `rag delete`."""
    make = parts.add_parser(
        "index", description="Make an index of documents, or add to one: all of them, or none if it is stopped."
    )
    make.add_argument(
        "--input",
        required=True,
        metavar="SOURCE",
        help="a file or folder of .txt, .md, .html, .pdf; a .jsonl, .csv, .parquet; wikipedia; or a hub dataset",
    )
    make.add_argument("--output", required=True, type=Path, metavar="DIR", help="the index; added to, if it is there")
    make.add_argument("--encoder", metavar="PATH", help="a checkpoint of a BERT or a retriever; without: BM25 alone")
    make.add_argument(
        "--vectors", default="flat", choices=("flat", "hnsw", "ivf"), help="exact, by a graph, by cells (%(default)s)"
    )
    make.add_argument("--passage", type=positive, metavar="N", help="tokens of a passage (126; 100 words without one)")
    make.add_argument("--overlap", type=int, default=32, metavar="N", help="tokens shared by neighbours (%(default)s)")
    make.add_argument("--stemmer", default="english", metavar="LANGUAGE", help="of BM25's words, or none (%(default)s)")
    make.add_argument("--name", metavar="NAME", help="configuration of a hub dataset")
    make.add_argument("--text-column", default="text", metavar="NAME", help="the column of the text (%(default)s)")
    make.add_argument("--delimiter", metavar="C", help="between the fields of a table; by its ending and its header")
    make.add_argument("--encoding", metavar="NAME", help="of texts, tables and JSON, such as cp1252; UTF-8")
    make.add_argument(
        "--max-malformed", type=non_negative, default=0.05, metavar="P", help="share of rows to leave out (%(default)s)"
    )
    make.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps, ... (%(default)s)")
    make.set_defaults(run=run_index)
    drop = parts.add_parser("delete", description="Delete documents from an index, by their sources.")
    drop.add_argument("--index", required=True, type=Path, metavar="DIR", help="the index")
    drop.add_argument("--source", required=True, action="append", metavar="NAME", help="as search shows it; repeatable")
    drop.set_defaults(run=run_delete)


def run_index(options: argparse.Namespace) -> None:
    """Add the documents of a source to an index."""
    from src.data.malformed import Reading
    from src.encoder import load_encoder
    from src.extras.retrieval.changing import add
    from src.extras.retrieval.documents import read_documents
    from src.extras.retrieval.index import Index
    from src.extras.retrieval.index_files import Settings
    from src.extras.retrieval.lexical import Words

    encoder = load_encoder(options.encoder, options.device) if options.encoder else None
    length = options.passage or (min(TOKENS_PASSAGE, encoder.max_tokens) if encoder else WORDS_PASSAGE)
    if encoder and length > encoder.max_tokens:
        raise InputError(f"--passage {length} is more than the {encoder.max_tokens} tokens that the encoder reads")
    if not 0 <= options.overlap < length:
        raise InputError(f"--overlap {options.overlap} must be at least 0 and less than a passage, {length}")
    Words(options.stemmer)  # refuses an unknown one before anything is read
    settings = Settings(
        options.encoder,
        encoder.checksum() if encoder else None,
        encoder.dimension if encoder else None,
        length,
        options.overlap,
        options.vectors,
        options.stemmer,
    )
    reading = Reading(False, options.max_malformed, options.delimiter, options.encoding)
    documents = read_documents(options.input, options.name, options.text_column, Path(".cache"), reading)
    added = add(options.output, documents, settings, encoder)
    index = Index(options.output)
    notes = {"new": added.new, "replaced": added.replaced, "there already": added.same, "without words": added.empty}
    print(f"{options.input}: " + ", ".join(f"{n:,} {what}" for what, n in notes.items() if n or what == "new"))
    print(f"{options.output}: {len(index.documents()):,} documents, {len(index):,} passages")


def run_delete(options: argparse.Namespace) -> None:
    """Delete documents from an index."""
    from src.extras.retrieval.changing import delete

    left = delete(options.index, options.source)
    print(f"{options.index}: {len(set(options.source)):,} documents deleted, {left:,} passages left")
