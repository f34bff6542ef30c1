"""The parser of the verbs that are not the trainer's."""

import argparse
from typing import NoReturn

from src.errors import InputError


class VerbParser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that takes no abbreviations and whose errors are ``InputError``: one line."""

    def __init__(self, prog: str, description: str | None) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def seed(text: str) -> int:
    """A whole number that random generators take."""
    if not text.isdecimal() or int(text) >= 1 << 63:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to 2^63 - 1")
    return int(text)


def non_negative(text: str) -> float:
    """A number of at least 0."""
    return _between(text, 0, float("inf"))


def fraction(text: str) -> float:
    """A number above 0 and up to 1."""
    return _between(text, 1e-9, 1)


def _between(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high or value == float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number between {low:g} and {high:g}")
    return value
