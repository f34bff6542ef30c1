"""What a sweep file says: the axes and their values, the seeds, how cells are chosen, and by what they are judged."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from src.errors import InputError
from src.extras.sweep.configuration import with_settings

SAMPLERS = ("grid", "random", "tpe")
PRUNERS = ("median", "halving")
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


@dataclass(frozen=True)
class Sweep:
    """A sweep.

    Args:
        parameters: dotted configuration keys and their values: a list, or a range ``{low, high, log, points}``. A value
            may be ``{name, value, parameters}``, with a name for tables and with parameters of its own.
        base: the configuration files, each over those before it.
        set: dotted keys with the values that all runs have.
        sampler: ``grid`` runs every cell; ``random`` and ``tpe`` choose ``cells`` of them.
        cells: how many ``random`` or ``tpe`` choose.
        seeds: each cell is run with each of them.
        tuning_seeds: run every cell with these, and with ``seeds`` only the best cell of each choice: what a choice has
            of parameters of its own is tuned on other seeds than those that it is judged by.
        metric: what a run is judged by, as validation logs it.
        mode: whether the lowest (``min``) or the highest (``max``) is the best.
        pruner: stop runs that are worse than the median of the others at the same step (``median``), or all but the
            best third at steps that double (``halving``); None prunes nothing.
    """

    parameters: dict[str, Any]
    base: list[str]
    set: dict[str, Any] = field(default_factory=dict)
    sampler: str = "grid"
    cells: int | None = None
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    tuning_seeds: list[int] = field(default_factory=list)
    metric: str = "val/loss"
    mode: str = "min"
    pruner: str | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("sampler", self.sampler, SAMPLERS),
            ("mode", self.mode, ("min", "max")),
            ("pruner", self.pruner, (None, *PRUNERS)),
        ):
            if value not in allowed:
                raise InputError(f"{name} is {value!r}: choose one of {', '.join(map(str, allowed))}")
        self._check_seeds()
        self._check_keys()
        if self.sampler != "grid" and (type(self.cells) is not int or self.cells < 1):
            raise InputError(f"cells is {self.cells}: sampler {self.sampler} needs how many to choose")
        for axis in self.all_axes():
            if self.sampler == "grid" and axis.range is not None and axis.range.points is None:
                raise InputError(f"{axis.key} is a range without points: a grid needs to know how many")

    def _check_seeds(self) -> None:
        for name, seeds in (("seeds", self.seeds), ("tuning_seeds", self.tuning_seeds)):
            whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
            if not whole or len(set(seeds)) < len(seeds):
                raise InputError(f"{name} is {seeds}: it must be a list of different whole numbers")
        if not self.seeds:
            raise InputError("the grid is empty: there are no seeds")
        both = set(self.seeds) & set(self.tuning_seeds)
        if both:
            raise InputError(f"seed {min(both)} is in seeds and in tuning_seeds: nothing is judged by what tuned it")

    def _check_keys(self) -> None:
        if not isinstance(self.parameters, dict) or not self.parameters:
            raise InputError("the grid is empty: parameters names no configuration key")
        if not isinstance(self.set, dict):
            raise InputError("set must be a mapping of dotted keys to values")
        varied = {axis.key for axis in self.axes}  # what a choice has of its own may lie over what is set
        if varied & self.set.keys():
            raise InputError(f"{min(varied & self.set.keys())} is both varied and set: leave one out")
        if "seed_everything" in {*self.set, *(axis.key for axis in self.all_axes())}:
            raise InputError("seed_everything is neither varied nor set: the seeds are given by seeds")

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The axes that every cell has."""
        return _axes(self.parameters, "")

    def all_axes(self) -> Iterator[Axis]:
        """Iterate over those of single choices too, each before its choices' own."""
        return _with_own(self.axes)

    def grid(self) -> list[Parameters]:
        """List every cell of the grid."""
        return list(_cells(self.axes, Range.grid))

    def probes(self) -> list[Parameters]:
        """List a few cells in which each value of each axis occurs, and both ends of each range."""
        probes, seen = [], set[tuple[str, str]]()
        for cell in _cells(self.axes, lambda values: [values.low, values.high]):
            values = {(name, json.dumps(label)) for name, label in cell.items()}
            if not values <= seen:
                probes.append(cell)
                seen |= values
        return probes

    def n_cells(self) -> int:
        """Count the cells of the sweep."""
        return len(self.grid()) if self.sampler == "grid" else self.cells or 0

    def settings(self, parameters: Parameters) -> dict[str, Any]:
        """Map the dotted keys of a cell to their values, over what all runs have."""
        return self.set | {axis.key: choice.value for axis, choice in self.chosen(parameters)}

    def config_of(self, config: dict[str, Any], parameters: Parameters, seed: int) -> dict[str, Any]:
        """Make the complete configuration of a run out of the base, less the folder that it goes to."""
        return with_settings(config, {**self.settings(parameters), "seed_everything": seed})

    def chosen(self, parameters: Parameters) -> Iterator[tuple[Axis, Choice]]:
        """Iterate over the axes of a cell, each with its choice, in the order of the file."""

        def below(axes: tuple[Axis, ...]) -> Iterator[tuple[Axis, Choice]]:
            for axis in axes:
                choice = axis.choice(parameters[axis.name])
                yield axis, choice
                yield from below(choice.axes)

        return below(self.axes)

    def group(self, parameters: Parameters) -> tuple[Label, ...]:
        """Return the choices of a cell on the axes that every cell has."""
        return tuple(parameters[axis.name] for axis in self.axes)

    def label(self, parameters: Parameters) -> str:
        """Name a cell as a person would, such as ``sgd, lr=0.1``."""
        parts = []
        for axis, choice in self.chosen(parameters):
            shown = f"{choice.label:g}" if isinstance(choice.label, float) else str(choice.label)
            is_name = isinstance(choice.label, str) and self.axes == (axis,)
            parts.append(shown if is_name else f"{axis.key.rpartition('.')[2]}={shown}")
        return ", ".join(parts)


def sweep_of(content: dict[str, Any], where: str) -> Sweep:
    """Make the sweep of a file's content."""
    known = [f.name for f in fields(Sweep)]
    for key in content:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise InputError(f"unknown key {key!r} in {where}; {hint}")
    if "parameters" not in content:
        raise InputError(f"the grid is empty: {where} has no parameters")
    base = content.get("base")
    if not base:
        raise InputError(f"{where} names no base configuration: add base, or give --base")
    return Sweep(**{**content, "base": [base] if isinstance(base, str) else base})


def _with_own(axes: tuple[Axis, ...]) -> Iterator[Axis]:
    for axis in axes:
        yield axis
        for choice in axis.choices:
            yield from _with_own(choice.axes)


def _axes(parameters: dict[str, Any], owner: str) -> tuple[Axis, ...]:
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
        return Choice(label, value["value"], _axes(own, str(label)) if own else ())
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


def _cells(axes: tuple[Axis, ...], numbers: Callable[[Range], list[float]]) -> Iterator[Parameters]:
    options: list[list[Parameters]] = []
    for axis in axes:
        if axis.range is not None:
            options.append([{axis.name: value} for value in numbers(axis.range)])
        else:
            options.append([{axis.name: c.label, **own} for c in axis.choices for own in _cells(c.axes, numbers)])
    for parts in product(*options):
        yield {name: label for part in parts for name, label in part.items()}
