"""completion: a script for the shell that completes verbs, their options, and files."""

import argparse
import inspect
import sys
from importlib import import_module
from typing import Literal

import shtab

from src.cli import VERBS
from src.cli.training_help import GENERAL, GROUPS
from src.cli.verb import VerbParser, Verbs, add_options


def completion(shell: Literal["bash", "zsh"], /) -> None:
    """Write the completion of a shell for run.sh.

    For bash: ./run.sh completion bash > ~/.local/share/bash-completion/completions/run.sh
    For zsh: ./run.sh completion zsh > _run.sh, in a folder of $fpath

    Args:
        shell: bash or zsh
    """
    parser = VerbParser(prog="run.sh", allow_abbrev=False)
    _add_verbs(parser, VERBS)
    print(shtab.complete(parser, shell))


def _add_verbs(parser: argparse.ArgumentParser, verbs: Verbs) -> None:
    """Give a parser the verbs and their options, and the verbs of a verb that has some."""
    subparsers = parser.add_subparsers()
    for verb, (path, what) in verbs.items():
        module, _, name = path.partition(":")
        try:
            imported = import_module(module)
        except ModuleNotFoundError as error:  # of an extra that is not installed
            print(f"left out {verb}: the package {error.name} is not installed", file=sys.stderr)
            continue
        function, subparser = getattr(imported, name), subparsers.add_parser(verb, help=what)
        if "arguments" not in inspect.signature(function).parameters:
            add_options(subparser, function)
        elif hasattr(imported, "VERBS"):
            _add_verbs(subparser, imported.VERBS)
        else:  # of the trainer
            for option, told in {**GENERAL, **{f"--{group}.help": "" for group in GROUPS}}.items():
                subparser.add_argument(option.split()[0], metavar=option.partition(" ")[2], help=told)
        for action in subparser._actions:
            if action.metavar in ("PATH", "FILE"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
