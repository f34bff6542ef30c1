"""What a sweep varies: axes, each with choices or a range of numbers, and the cells that they span."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from src.errors import InputError

RANGE_KEYS = {"low", "high", "log", "points"}
CHOICE_KEYS = {"name", "value", "parameters"}

Label = str | int | float | bool | None  # what a database holds of a value
Parameters = dict[str, Label]  # a cell: the label of each of its axes


@dataclass(frozen=True)
class Choice:
    """A value of an axis, under the label that it has in tables."""

    label: Label
    value: Any
    axes: tuple["Axis", ...] = ()  # those that only this value has, such as an optimizer's own learning rates


@dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``, by their logarithms if ``log``; a grid takes ``points`` of them."""

    low: float
    high: float
    log: bool = False
    points: int | None = None

    @property
    def is_integer(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def grid(self) -> list[float]:
        """List its points, at equal distances."""
        assert self.points is not None
        spaced = (np.geomspace if self.log else np.linspace)(self.low, self.high, self.points)
        values = [float(f"{value:.6g}") for value in spaced]
        values[0], values[-1] = self.low, self.high
        return list(dict.fromkeys(round(value) for value in values)) if self.is_integer else values


@dataclass(frozen=True)
class Axis:
    """A dotted configuration key that is varied, over choices or a range."""

    name: str  # unique in the sweep: the key, after the choice that the axis belongs to
    key: str
    choices: tuple[Choice, ...] = ()
    range: Range | None = None

    def choice(self, label: Label) -> Choice:
        """Return the choice of a label; in a range, the number itself."""
        if self.range is not None:
            return Choice(label, label)
        return next(choice for choice in self.choices if choice.label == label and type(choice.label) is type(label))


def with_own(axes: tuple[Axis, ...]) -> Iterator[Axis]:
    """Iterate over axes and over those of their choices, each before its choices' own."""
    for axis in axes:
        yield axis
        for choice in axis.choices:
            yield from with_own(choice.axes)


def axes_of(parameters: dict[str, Any], owner: str = "") -> tuple[Axis, ...]:
    """Make the axes of what a sweep file says under ``parameters``, of all cells or of the choice ``owner``."""
    axes = []
    for key, values in parameters.items():
        name = f"{owner}: {key}" if owner else key
        if isinstance(values, dict) and values.keys() <= RANGE_KEYS:
            axes.append(Axis(name, key, range=_range(key, values)))
        elif isinstance(values, list) and values:
            choices = tuple(_choice(key, value) for value in values)
            labels = [json.dumps(choice.label) for choice in choices]
            twice = next((label for label in labels if labels.count(label) > 1), None)
            if twice is not None:
                raise InputError(f"{key} has the value {twice} twice")
            axes.append(Axis(name, key, choices))
        elif values in ([], {}, None):
            raise InputError(f"the grid is empty: {key} has no values")
        else:
            raise InputError(f"{key} is {values!r}: it must be a list of values, or a range {{low, high, log, points}}")
    return tuple(axes)


def _choice(key: str, value: Any) -> Choice:
    if isinstance(value, dict) and value.keys() <= CHOICE_KEYS and "value" in value:
        label = value.get("name", value["value"])
        label = label if isinstance(label, Label) else json.dumps(label)
        own = value.get("parameters")
        if own is not None and (not isinstance(own, dict) or not own):
            raise InputError(f"the grid is empty: {key} {label} has parameters without a key")
        return Choice(label, value["value"], axes_of(own, str(label)) if own else ())
    return Choice(value if isinstance(value, Label) else json.dumps(value), value)


def _range(key: str, values: dict[str, Any]) -> Range:
    try:
        made = Range(**values)
        wrong = not (made.low < made.high and math.isfinite(made.high - made.low)) or (made.log and made.low <= 0)
    except TypeError:
        wrong = True
    if wrong or (made.points is not None and (type(made.points) is not int or made.points < 2)):
        raise InputError(f"{key} is no range: {values} needs low < high, low above 0 with log, and 2 points or more")
    return made


def cells_of_axes(axes: tuple[Axis, ...], numbers: Callable[[Range], list[float]]) -> Iterator[Parameters]:
    """Iterate over all combinations of axes, with the numbers that are taken of a range."""
    options: list[list[Parameters]] = []
    for axis in axes:
        if axis.range is not None:
            options.append([{axis.name: value} for value in numbers(axis.range)])
        else:
            options.append(
                [{axis.name: c.label, **own} for c in axis.choices for own in cells_of_axes(c.axes, numbers)]
            )
    for parts in product(*options):
        yield {name: label for part in parts for name, label in part.items()}
