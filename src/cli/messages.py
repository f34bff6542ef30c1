"""A parser's complaint of many lines, as one line that names the key, the value and the nearest known name."""

import inspect
import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from pydoc import locate
from traceback import walk_tb

from src.discovery import parts
from src.errors import InputError

# what jsonargparse wraps around the line that matters
NOISE = re.compile(
    r"^(Does not validate against any of|Subtypes:|Errors:|Expected a <class 'NoneType'>|Given value|"
    r"Problem with given class_path|Type typing\.Callable\[.*?expects a function or a callable class: $|tip:)"
)
DENIED = re.compile(r"Importing '(\S+)' is not allowed")
UNKNOWN_KEY = re.compile(r"(?:Option|does not accept option|unrecognized arguments:) ?'?(?:--)?([\w.]+)'?")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest of the known names, or nothing where none is near."""
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def values_of(options: tuple[str, ...], arguments: list[str]) -> list[str]:
    """The values of an option on a command line, as ``--option value`` or ``--option=value``."""
    values = [value for option, value in pairwise(arguments) if option in options]
    return values + [a.partition("=")[2] for a in arguments if a.partition("=")[0] in options and "=" in a]


def refusal(error: Exception) -> InputError | None:
    """The line for settings that a run refuses, Lightning's own refusals among them; None for a fault of the program.

    Some settings Lightning checks only once it has data and loops, and not always by an exception of its own kind: so
    it counts who raises it, and not who is called.
    """
    if isinstance(error, InputError):
        return error
    *_, (frame, _) = walk_tb(error.__traceback__)
    is_of_lightning = str(frame.f_globals.get("__name__")).startswith("lightning.")
    return InputError(f"trainer: {error}") if is_of_lightning else None


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
    """The keys on the way in, the classes met there, and what was said at the end."""
    path: list[str] = []
    classes = re.findall(r"class_path '([\w.]+)'", message) + re.findall(r"Namespace\(class_path='([\w.]+)'", message)
    said: list[str] = []
    for raw in message.splitlines():
        line = re.sub(r"^Type typing\.Callable\[.*?callable class: ", "", raw.strip().removeprefix("- "))
        key = re.match(r'Parser key "([\w.]+)":\s*(.*)', line)
        if key:
            path.append(key[1])
            line = key[2]
        if line and not NOISE.match(line):
            said.append(re.sub(r"\. Got value: Namespace\(.*", "", line))
    # of several types that a value may have, plain text is the one that was not meant
    meant = [line for line in said if not line.startswith("Expected a <class 'str'>")]
    return path, classes, "; ".join(dict.fromkeys(meant or said))


def _parameters(class_path: str) -> list[str]:
    """The names that a class's configuration takes, with those of its dataclasses as ``parameter.field``."""
    found = locate(class_path)
    if found is None or not callable(found):
        return []
    names = []
    # a class may hand ``**kwargs`` to its parents
    makers = [parent.__init__ for parent in inspect.getmro(found)[:-1]] if inspect.isclass(found) else [found]
    for parameter in (each for maker in makers for each in inspect.signature(maker).parameters.values()):
        names.append(parameter.name)
        if is_dataclass(parameter.annotation):
            names += [f"{parameter.name}.{field.name}" for field in fields(parameter.annotation)]
    return names


def _class_names() -> list[str]:
    """The classes that a configuration is likely to mean."""
    core = [locate(name) for name in ("src.tasks", "src.data", "src.optim", "src.callbacks", "torch.optim")]
    return [name for module in (*core, *parts("tasks"), *parts("data")) for name in vars(module) if name[0].isupper()]


def _file_with(key: str, arguments: list[str]) -> str:
    """`` in FILE`` for the configuration file that has a key, or nothing where it is on the command line."""
    if any(key in argument.partition("=")[0].split(".") for argument in arguments):
        return ""
    for config in values_of(("--config", "-c"), arguments):
        path = Path(config)
        # it may also be a configuration itself, as a checkpoint's is
        if (
            "\n" not in config
            and path.is_file()
            and re.search(rf"\b{re.escape(key)}\b", path.read_text(encoding="utf-8"))
        ):
            return f" in {config}"
    return ""
