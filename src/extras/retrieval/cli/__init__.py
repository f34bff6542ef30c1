"""rag: index documents, search them by words and by vectors, rerank what is found, and answer from it."""

from src.cli.parser import VerbParser
from src.extras.retrieval.cli import answer, evaluate, index, search


def parser() -> VerbParser:
    """The options of `rag` and of its parts."""
    options = VerbParser(prog="python -m src rag", description=__doc__)
    parts = options.add_subparsers(required=True, metavar="WHAT")
    for module in (index, search, answer, evaluate):
        module.add_parsers(parts)
    return options


def main(arguments: list[str]) -> None:
    """Run a part of the verb.

    Raises:
        InputError: a bad option, a source, checkpoint or index that cannot be read, or a query without words.
    """
    options = parser().parse_args(arguments[1:])
    options.run(options)
