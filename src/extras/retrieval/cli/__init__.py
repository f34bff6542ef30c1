"""rag: index documents, search them by words and by vectors, rerank what is found, and answer from it."""

from src.cli import help_text, run_verb
from src.cli.messages import called_as
from src.cli.verb import Verbs
from src.errors import InputError

VERBS: Verbs = {
    "index": ("src.extras.retrieval.cli.index:index", "make an index of documents, or add to one"),
    "delete": ("src.extras.retrieval.cli.index:delete", "take documents out of an index"),
    "search": ("src.extras.retrieval.cli.search:search", "show the best passages for a query"),
    "answer": ("src.extras.retrieval.cli.answer:answer", "answer a question from what is found for it"),
    "queries": ("src.extras.retrieval.cli.evaluate:queries", "make queries without labels out of documents"),
    "mine": ("src.extras.retrieval.cli.evaluate:mine", "mine hard negatives to train on"),
    "eval": ("src.extras.retrieval.cli.evaluate:evaluate", "measure how well passages are found"),
}


def rag(arguments: list[str]) -> None:
    """Run one of its verbs."""
    program = f"{called_as()} rag"
    if not arguments[1:]:
        raise InputError(f"a verb of rag is required: one of {', '.join(VERBS)} (see {program} --help)")
    if arguments[1] in ("-h", "--help"):
        print(help_text(VERBS, program))
    else:
        run_verb(arguments[1:], VERBS, program)
