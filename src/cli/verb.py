"""A verb is a typed function: its parameters are the options, and its docstring is their help.

jsonargparse, which reads the configurations of `fit`, is not used here: it takes a value for YAML, and would give
`--prompt null` as None and `--prompt "[a]"` as a list.
"""

import argparse
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from src.cli.messages import did_you_mean
from src.errors import InputError

R = TypeVar("R")
Verbs = Mapping[str, tuple[str, str]]  # verb -> (MODULE:FUNCTION, what it does)


def integer(low: int) -> Callable[[str], int]:
    """Make the reader of a whole number from ``low`` on, up to what random generators take."""

    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) < 1 << 63:
            bounds = f"of at least {low}" if low else "from 0 to 2^63 - 1"
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number {bounds}")
        return int(text)

    return read


def number(low: float, high: float) -> Callable[[str], float]:
    """Make the reader of a finite number between two."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high or value == float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is no number between {low:g} and {high:g}")
        return value

    return read


Positive = Annotated[int, integer(1)]
NonNegative = Annotated[int, integer(0)]
NonNegativeFloat = Annotated[float, number(0, float("inf"))]
Fraction = Annotated[float, number(1e-9, 1)]  # above 0 and up to 1


class VerbParser(argparse.ArgumentParser):
    """A parser that takes no abbreviations and whose errors are ``InputError``: one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def check_output(output: Path, suffix: str) -> None:
    """Refuse an ``--output`` that is no file of its kind in a folder that exists."""
    if output.suffix != suffix or not output.parent.is_dir():
        raise InputError(f"--output {output} must be a {suffix} file in a folder that exists")


def call(program: str, function: Callable[..., R], arguments: list[str]) -> R:
    """Call a verb's function with the options of a command line, the verb first.

    Options are named as the parameters, with dashes; a trailing underscore, as of ``input_``, is left out. By its type
    a parameter is a flag (``bool``), may be left out (``X | None``), is repeated (``list[X]``), has several values
    (``tuple[X, ...]``), is read by a function (``Annotated[X, read]``), or stands for the options that are its fields
    (a dataclass). One before ``/`` has no name on the command line, and ``*rest`` takes what is not known here. A
    function with a parameter ``arguments`` is given the command line as it stands. Every other verb has the option
    ``--allow_class_paths`` too, whose modules are imported first.
    """
    parameters = inspect.signature(function).parameters
    if "arguments" in parameters:
        return function(arguments)
    description = inspect.cleandoc(function.__doc__ or "").partition("\nArgs:\n")[0]
    parser = VerbParser(prog=program, description=description, allow_abbrev=False)
    add_options(parser, function)
    allow_help = "a module of your own that registers architectures; repeat it for several"
    parser.add_argument("--allow_class_paths", action="append", default=[], metavar="MODULE", help=allow_help)
    options, rest = parser.parse_known_args(arguments[1:])
    takes_rest = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters.values())
    if rest and not takes_rest:
        hint = did_you_mean(rest[0].partition("=")[0], parser._option_string_actions)
        parser.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
    if options.allow_class_paths:
        from src.cli.class_names import import_modules  # needs jsonargparse, and `init` runs before it is installed

        import_modules(options.allow_class_paths)
    return _called(function, options, rest)


def add_options(parser: argparse.ArgumentParser, function: Callable[..., Any]) -> None:
    """Give a parser the options that a function's parameters are."""
    hints, helps = get_type_hints(function, include_extras=True), {}
    for base in reversed(inspect.getmro(function)) if inspect.isclass(function) else [function]:
        helps.update(_helps(base))
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if is_dataclass(hints[name]):
            add_options(parser, hints[name])
            continue
        is_required = parameter.default is parameter.empty
        default = None if is_required else parameter.default
        shown = "" if default is None or default is False else f" ({default})"
        settings = {"help": f"{helps[name]}{shown}".replace("%", "%%"), **_settings(hints[name], name)}
        if parameter.kind is parameter.POSITIONAL_ONLY:
            parser.add_argument(name, **settings)
        else:
            option = f"--{name.strip('_').replace('_', '-')}"
            parser.add_argument(option, dest=name, required=is_required, default=default, **settings)


def _helps(function: Callable[..., Any]) -> dict[str, str]:
    """Read what the section "Args" of a docstring says of each parameter."""
    section = inspect.cleandoc(function.__doc__ or "").partition("\nArgs:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _settings(hint: Any, name: str) -> dict[str, Any]:
    """Map a parameter's type to what ``add_argument`` takes."""
    if NoneType in get_args(hint):
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    if hint is bool:
        return {"action": "store_true"}
    settings: dict[str, Any] = {}
    if get_origin(hint) in (list, tuple):
        settings = {"nargs": "+"} if get_origin(hint) is tuple else {"action": "append"}
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        return {**settings, "choices": get_args(hint)}
    read = kind = hint
    if get_origin(hint) is Annotated:
        kind, read = get_args(hint)
    metavar = {int: "N", float: "X", Path: "PATH"}.get(kind, name.strip("_").upper())
    return {**settings, "type": read, "metavar": metavar}


def _called(function: Callable[..., R], options: argparse.Namespace, rest: Sequence[str] = ()) -> R:
    """Call a function with what was parsed for its parameters."""
    signature, hints = inspect.signature(function), get_type_hints(function)
    bound = signature.bind_partial()
    for name, parameter in signature.parameters.items():
        if is_dataclass(hints[name]):
            bound.arguments[name] = _called(hints[name], options)
        else:
            is_rest = parameter.kind is parameter.VAR_POSITIONAL
            bound.arguments[name] = tuple(rest) if is_rest else getattr(options, name)
    return function(*bound.args, **bound.kwargs)
