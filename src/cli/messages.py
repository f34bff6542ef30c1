"""Messages to the user: an error of a parser as one line, and none of what Lightning prints about itself."""

import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from pydoc import locate

from src.discovery import parts

# what jsonargparse wraps around the line that matters
NOISE = re.compile(
    r"^(Does not validate against any of|Subtypes:|Errors:|Expected a <class 'NoneType'>|Given value|"
    r"Problem with given class_path|Type typing\.Callable\[.*?expects a function or a callable class: $|tip:)"
)
DENIED = re.compile(r"Importing '(\S+)' is not allowed")
LACKING = re.compile(r"Requirement '([\w-]+).*?' not met")  # by one of Lightning's own classes
INSTEAD = {"mlflow": "mlflow-skinny sqlalchemy alembic"}  # the whole of it, a server too, takes an older pyarrow
UNKNOWN_KEY = re.compile(r"(?:Option|does not accept option|unrecognized arguments:) ?'?(?:--)?([\w.]+)'?")


def called_as() -> str:
    """Name the program as it was called: ``run.sh`` says so."""
    return os.environ.get("RUN_SH", "python -m src")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest of the known names, or nothing where none is near."""
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def values_of(options: tuple[str, ...], arguments: list[str]) -> list[str]:
    """Find the values of an option on a command line, as ``--option value`` or ``--option=value``."""
    values = [value for option, value in pairwise(arguments) if option in options]
    return values + [a.partition("=")[2] for a in arguments if a.partition("=")[0] in options and "=" in a]


def one_line(message: str, options: Iterable[str], arguments: list[str]) -> str:
    """Condense a jsonargparse error.

    Args:
        message: as jsonargparse words it, nested and on many lines.
        options: the parser's own dotted keys.
        arguments: the command line, with the configuration files.
    """
    path, classes, leaf = _unnest(message)
    denied = DENIED.search(leaf)
    if denied:
        where = f"{'.'.join(path)}: " if path else ""
        module = denied[1].rpartition(".")[0] or denied[1]
        return (
            f"{where}{denied[1]!r} is not imported: a configuration names classes of src, torch, lightning and "
            f"torchmetrics alone; for others that you trust there is --allow_class_paths {module}"
        )
    unknown = UNKNOWN_KEY.search(leaf)
    if unknown:
        group = re.search(r"Group '([\w.]+)'", leaf)
        relative = ".".join(filter(None, [group and group[1], unknown[1]]))
        key = ".".join([*path, relative])
        known = [".".join([*path, name]) for name in _parameters(classes[-1])] if classes else options
        where = _file_with(unknown[1].rpartition(".")[2], arguments)
        return f"unknown key {key!r}{where}{did_you_mean(key, known)}"
    lacking = LACKING.search(leaf)
    if lacking:
        install = INSTEAD.get(lacking[1], lacking[1])
        return f"the package {lacking[1]} is not installed: {sys.executable} -m pip install {install}"
    key = ".".join(path)
    where = _file_with(path[-1].rpartition(".")[2], arguments) if path else ""
    name = re.search(r"dot import path string: (\S+)", leaf)
    number = re.search(r"Expected a <class '(int|float|bool)'>", leaf)
    if name and number:  # a number of a class's own, which may also be a tensor
        return f"{key}{where}: expected a {number[1]}, not {name[1]!r}"
    if name:
        return f"{key}{where}: there is no class {name[1]!r}{did_you_mean(name[1], _class_names())}"
    leaf = re.sub(r"<class '([\w.]+)'>", r"\1", leaf)
    return f"{key}{where}: {leaf}" if key else leaf


def _unnest(message: str) -> tuple[list[str], list[str], str]:
    """Take apart a nested message: the keys on the way in, the classes met there, and the message at the end."""
    path: list[str] = []
    classes = re.findall(r"class_path '([\w.]+)'", message) + re.findall(r"Namespace\(class_path='([\w.]+)'", message)
    lines: list[str] = []
    for raw in message.splitlines():
        line = re.sub(r"^Type typing\.Callable\[.*?callable class: ", "", raw.strip().removeprefix("- "))
        key = re.match(r'Parser key "([\w.]+)":\s*(.*)', line)
        if key:
            path.append(key[1])
            line = key[2]
        if line and not NOISE.match(line):
            lines.append(re.sub(r"\. Got value: Namespace\(.*", "", line))
    # of several types that a value may have, plain text is the one that was not meant
    meant = [line for line in lines if not line.startswith("Expected a <class 'str'>")]
    return path, classes, "; ".join(dict.fromkeys(meant or lines))


def _parameters(class_path: str) -> list[str]:
    """List what a class's configuration takes, with the fields of its dataclasses as ``parameter.field``."""
    from jsonargparse import ArgumentParser  # not before it is needed: `init` runs where nothing is installed

    parser, found = ArgumentParser(), locate(class_path)
    if isinstance(found, type):
        parser.add_class_arguments(found, fail_untyped=False)
    return [action.dest for action in parser._actions if not action.dest.endswith("help")]


def _class_names() -> list[str]:
    """List the classes that a configuration is likely to mean."""
    core = [locate(name) for name in ("src.tasks", "src.data", "src.optim", "src.callbacks", "torch.optim")]
    return [name for module in (*core, *parts("tasks"), *parts("data")) for name in vars(module) if name[0].isupper()]


def _file_with(key: str, arguments: list[str]) -> str:
    """Return `` in FILE`` for the configuration file that has a key, or nothing where it is on the command line."""
    if any(key in argument.partition("=")[0].split(".") for argument in arguments):
        return ""
    # one of them may also be a configuration itself, as a checkpoint's is
    configs = [config for config in values_of(("--config", "-c"), arguments) if "\n" not in config]
    for path in map(Path, reversed(configs)):  # the last one rules
        if path.is_file() and re.search(rf"\b{re.escape(key)}\b", path.read_text(encoding="utf-8")):
            return f" in {path}"
    return ""


def quieten() -> None:
    """Leave out what Lightning prints about itself, and warnings that nobody here can act on."""
    # TensorBoard writes in a thread of its own, and raises again what it met there
    threading.excepthook = lambda met: None if isinstance(met.exc_value, OSError) else threading.__excepthook__(met)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*isinstance.treespec, LeafSpec.. is deprecated",
        ".*does not have many workers",  # the data are memory-mapped: a worker costs more than it saves
        ".*The dirpath has changed from",  # a resumed run has a folder of its own
        ".*compute.. method of metric .* was called before",  # those of a pipeline's first stages
        ".*was deprecated in v4",  # what Lightning calls in jsonargparse
        ".*Checkpoint directory .* exists and is not empty",  # a run that goes on
        ".*You requested to overfit but enabled train dataloader shuffling",  # ours repeats the batches of one epoch
        ".*The number of training batches .* is smaller than the logging interval",
    ):
        warnings.filterwarnings("ignore", message)
