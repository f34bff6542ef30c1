"""The suites by their names. A new one is a line here and a function that gives an ``Evaluation``."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from src.cli.messages import did_you_mean
from src.cli.verb import Verbs
from src.errors import InputError

# suite -> (its function, what it scores); besides, every test set of sacrebleu is a suite by its own name
SUITES: Verbs = {
    "lm": (
        "src.extras.evaluation.language_tasks:lm",
        "a GPT on tasks of lm-eval: hellaswag, lambada_openai, piqa, ...",
    ),
    "core": ("src.extras.evaluation.language_tasks:core", "a GPT on those of DCLM's CORE set"),
    "perplexity": ("src.extras.evaluation.perplexity:perplexity", "a GPT on a text: perplexity, bits per byte"),
    "glue": ("src.extras.evaluation.glue:glue", "a BERT or another encoder, fine-tuned on GLUE's nine tasks"),
    "beir": ("src.extras.evaluation.beir:beir", "an encoder on retrieval in BEIR's format, NanoBEIR's too"),
    "mteb": ("src.extras.evaluation.embedding_tasks:mteb", "an encoder on tasks of MTEB: STSBenchmark, ..."),
    "wmt14": ("src.extras.evaluation.translation:translation", "a Transformer on WMT 2014; so wmt16, ... of sacrebleu"),
}


def find_suite(name: str) -> tuple[Callable[..., Any], list[str]]:
    """Find the function of a suite, and the options that its name stands for."""
    if name in SUITES and name != "wmt14":
        return _function(SUITES[name][0]), []
    from sacrebleu.dataset import DATASETS  # not for the help of the others

    if name in DATASETS:
        return _function(SUITES["wmt14"][0]), ["--test-set", name]
    hint = did_you_mean(name, [*SUITES, *DATASETS]) or f"; choose one of {', '.join(SUITES)}"
    raise InputError(f"unknown suite {name!r}{hint}")


def _function(path: str) -> Callable[..., Any]:
    module, _, function = path.partition(":")
    return getattr(import_module(module), function)
