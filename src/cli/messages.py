"""Messages to the user: an error of a parser as one line, and none of what Lightning prints about itself."""

import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import pairwise, repeat
from pathlib import Path
from pydoc import locate
from textwrap import shorten
from typing import Any

from src.discovery import parts

CONFIGS = Path(__file__).parents[2] / "configs"
# what jsonargparse wraps around the line that matters
NOISE = re.compile(
    r"^(Does not validate against any of|Subtypes:|Errors:|Expected a <class 'NoneType'>|Given value|"
    r"Problem with given class_path|Type typing\.Callable\[.*?expects a function or a callable class: $|tip:)"
)
DENIED = re.compile(r"Importing '(\S+)' is not allowed")
LACKING = re.compile(r"Requirement '([\w-]+).*?' not met")  # by one of Lightning's own classes
INSTEAD = {"mlflow": "mlflow-skinny sqlalchemy alembic"}  # the whole of it, a server too, takes an older pyarrow
REQUIRED = re.compile(r"arguments are required: (\w+)\.")
GIVEN = re.compile(r"(?:Got value|Given value): (.*?)(?:\. Got value: |$)", re.MULTILINE)
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "tuple": "a list"}
UNKNOWN_KEY = re.compile(r"(?:Option|does not accept option|unrecognized arguments:) ?'?(?:--)?([\w.]+)'?")


def called_as() -> str:
    """Name the program as it was called: ``run.sh`` says so."""
    return os.environ.get("RUN_SH", "python -m src")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest of the known names in any case, or nothing where none is near."""
    names = {known_name.lower(): known_name for known_name in known}
    near = get_close_matches(name.lower(), names, n=1)
    return f"; did you mean {names[near[0]]!r}?" if near else ""


def values_of(options: tuple[str, ...], arguments: list[str]) -> list[str]:
    """Find the values of an option on a command line, as ``--option value`` or ``--option=value``."""
    values = [value for option, value in pairwise(arguments) if option in options]
    return values + [a.partition("=")[2] for a in arguments if a.partition("=")[0] in options and "=" in a]


def is_yaml(config: str) -> bool:
    """Whether a value of ``--config`` is YAML itself, as a checkpoint's configuration is, and not a file's name."""
    return "\n" in config or ": " in config


def one_line(message: str, options: Iterable[str], arguments: list[str]) -> str:
    """Condense a jsonargparse error.

    Args:
        message: as jsonargparse words it, nested and on many lines.
        options: the parser's own dotted keys.
        arguments: the command line, with the configuration files.
    """
    path, classes, leaf = _unnest(message)
    key = ".".join(path)
    denied = DENIED.search(leaf)
    if denied:
        module = denied[1].rpartition(".")[0] or denied[1]
        return (
            f"{key}{': ' if key else ''}{denied[1]!r} is not imported: a configuration names classes of src, torch, "
            f"lightning and torchmetrics alone; for others that you trust there is --allow_class_paths {module}"
        )
    unknown = UNKNOWN_KEY.search(leaf)
    if unknown:
        group = re.search(r"Group '([\w.]+)'", leaf)
        relative = ".".join(filter(None, [group and group[1], unknown[1]]))
        key = ".".join([*path, relative])
        known = [".".join([*path, name]) for name in _parameters(classes[-1])] if classes else options
        return f"unknown key {key!r}{file_with(key, arguments)}{did_you_mean(key, known)}"
    required = REQUIRED.search(message)
    if required and not key:
        keys = " and ".join(name for name in ("model", "data") if f"{required[1]}.{name}" in message)
        return (
            f"no --config sets {keys}: give one that does, such as --config {os.path.relpath(CONFIGS)}/gpt.yaml "
            f"({called_as()} {required[1]} --help lists them), or --ckpt_path FILE"
        )
    lacking = LACKING.search(leaf)
    if lacking:
        install = INSTEAD.get(lacking[1], lacking[1])
        return f"the package {lacking[1]} is not installed: {sys.executable} -m pip install {install}"
    where = file_with(key, arguments) if key else ""
    name = re.search(r"dot import path string: ([^\s;]+)", leaf)
    if name and not re.search(r"<class '(int|float)'>", leaf):  # a number of a class's own may also be a tensor
        return f"{key}{where}: there is no class {name[1]!r}{did_you_mean(name[1], _class_names())}"
    if load := re.search(r'Unable to load config "(.*?)"', leaf):
        return f"{key}{where} is {load[1]}: it must be keys and values, or a YAML file of them"
    given, kinds = GIVEN.search(message), _expected(leaf)
    if given and kinds:
        return f"{key}{where} is {shorten(given[1], 60) or repr('')}: it must be {kinds}"
    return f"{key}{where}: {leaf}" if key else leaf


def _expected(leaf: str) -> str:
    """Say in words of which types or choices jsonargparse expected a value."""
    kinds = dict.fromkeys(re.findall(r"Expected a <class '([\w.]+)'>", leaf))
    if "float" in kinds:
        kinds.pop("int", None)
    choices = dict.fromkeys(re.findall(r"[^\s',]+", " ".join(re.findall(r"typing\.Literal\[(.*?)\]", leaf))))
    words = [KINDS.get(kind, f"a {kind}") for kind in kinds]
    return " or ".join([*words, *(["one of " + ", ".join(choices)] if choices else [])])


def _unnest(message: str) -> tuple[list[str], list[str], str]:
    """Take apart a nested message: the keys on the way in, the classes met there, and the message at the end."""
    path: list[str] = []
    classes = re.findall(r"class_path '([\w.]+)'", message) + re.findall(
        r"Got value: Namespace\(class_path='([\w.]+)'", message
    )
    lines: list[str] = []
    for raw in message.splitlines():
        line = re.sub(r"^Type typing\.Callable\[.*?callable class: ", "", raw.strip().removeprefix("- "))
        key = re.match(r'Parser key "([\w.]+)":\s*(.*)', line)
        if key:
            path += [key[1]] if path[-1:] != [key[1]] else []  # a dataclass is named twice
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


def file_with(key: str, arguments: list[str]) -> str:
    """Return `` in FILE`` for the configuration file that has a key, or nothing where it is on the command line."""
    from src.cli.config_overrides import read_config  # not before it is needed, as above

    options = [re.split("[=+]", argument)[0].replace(".init_args", "") for argument in arguments]
    configs = values_of(("--config", "-c"), arguments) if f"--{key}" not in options else []
    files = [path for path in configs if not is_yaml(path) and Path(path).is_file()]
    found = (f" in {path}" for path in reversed(files) if key in _keys(read_config(path)))
    return next(found, "")  # of the last one, which rules


def _keys(value: Any, key: str = "") -> Iterator[str]:
    """Yield the dotted keys of nested settings, as they are named on the command line."""
    yield key.removeprefix(".").replace(".init_args", "")
    items = value.items() if isinstance(value, dict) else zip(repeat(""), value if isinstance(value, list) else [])
    for name, item in items:
        yield from _keys(item, f"{key}.{name}" if name else key)


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
