"""What a sweep file says: the axes and their values, the seeds, how cells are chosen, and by what they are judged."""

import json
import math
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from src.errors import InputError
from src.extras.sweep.axes import Axis, Choice, Label, Parameters, Range, axes_of, cells_of_axes, with_own
from src.extras.sweep.configuration import check_fields, with_settings
from src.extras.sweep.ladder import Ladder, depth_of, ladder_of, layers, scaled

SAMPLERS = ("grid", "random", "tpe")
PRUNERS = ("median", "halving")
JUDGED_BY = ("metric", "steps", "tokens", "seconds")
LADDER = "ladder"  # the axis of a ladder's sizes, which is no key of a configuration


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
        baseline: the choice that the others are compared with: its label, or with several axes a mapping of their keys
            to labels; the first of each axis where nothing is said.
        difference: in the metric, the smallest worth knowing, for which ``pilot`` says how many seeds it needs.
        pilot: the folder of an earlier study, of whose seeds one learns how much they differ.
        target: a value of the metric, for the steps, tokens and seconds until it is reached.
        judged_by: the metric at the end, or the ``steps``, ``tokens`` or ``seconds`` to the target. Cells are tuned by
            the metric in any case.
        max_tokens: a run that trains on more fails.
        ladder: the sizes at which each cell is run; None for the base's own.
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
    baseline: Any = None
    difference: float | None = None
    pilot: str | None = None
    target: float | None = None
    judged_by: str = "metric"
    max_tokens: int | None = None
    ladder: Ladder | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("sampler", self.sampler, SAMPLERS),
            ("mode", self.mode, ("min", "max")),
            ("pruner", self.pruner, (None, *PRUNERS)),
            ("judged_by", self.judged_by, JUDGED_BY),
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
        self._check_judging()
        _ = self.baseline_group

    def _check_judging(self) -> None:
        for name, number in (("difference", self.difference), ("target", self.target), ("max_tokens", self.max_tokens)):
            if number is not None and (type(number) not in (int, float) or not math.isfinite(number)):
                raise InputError(f"{name} is {number!r}: it must be a number")
        if (self.difference is None) != (self.pilot is None):
            raise InputError("difference and pilot go together: how many seeds a difference needs is seen in a pilot")
        if self.difference is not None and self.difference <= 0:
            raise InputError(f"difference is {self.difference}: it must be above 0")
        if self.judged_by != "metric" and self.target is None:
            raise InputError(f"judged_by is {self.judged_by}: it needs the target that is to be reached")
        if self.ladder is not None and (self.sampler != "grid" or self.pruner or self.mode != "min"):
            raise InputError("a ladder fits a loss over whole runs of every cell: sampler grid, mode min and no pruner")
        if self.ladder is not None and self.judged_by != "metric":
            raise InputError(f"judged_by is {self.judged_by}: a ladder fits the metric")

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
        """The axes that every cell has, that of a ladder first."""
        sizes = () if self.ladder is None else tuple(Choice(size, size) for size in self.ladder.sizes)
        return (*([Axis(LADDER, LADDER, sizes)] if sizes else []), *self.varied)

    @cached_property
    def varied(self) -> tuple[Axis, ...]:
        """The axes of the choices that are compared."""
        return axes_of(self.parameters)

    @cached_property
    def baseline_group(self) -> tuple[Label, ...] | None:
        """The labels of the baseline on the axes of the choices; None for the first cell that was sampled."""
        given = self.baseline
        if given is None and self.sampler != "grid":
            return None
        if given is not None and not isinstance(given, dict):
            if len(self.varied) > 1:
                raise InputError(
                    f"baseline is {given}: with several parameters, give a mapping of their keys to labels"
                )
            given = {self.varied[0].key: given}
        group = []
        for axis in self.varied:
            labels: list[Any] = [choice.label for choice in axis.choices] if axis.range is None else axis.range.grid()
            label = (given or {}).get(axis.key, labels[0])
            if label not in labels:
                raise InputError(f"baseline {axis.key} is {label!r}: choose one of {', '.join(map(str, labels))}")
            group.append(label)
        unknown = (given or {}).keys() - {axis.key for axis in self.varied}
        if unknown:
            raise InputError(f"baseline names {min(unknown)}, which is not varied")
        return tuple(group)

    def all_axes(self) -> Iterator[Axis]:
        """Iterate over those of single choices too, each before its choices' own."""
        return with_own(self.axes)

    @property
    def judged_name(self) -> str:
        """What a run is judged by, such as ``val/loss`` or ``tokens to val/loss 2.6``."""
        return self.metric if self.judged_by == "metric" else f"{self.judged_by} to {self.metric} {self.target:g}"

    @property
    def judged_mode(self) -> str:
        """Whether the lowest or the highest of that is the best."""
        return self.mode if self.judged_by == "metric" else "min"

    def grid(self) -> list[Parameters]:
        """List every cell of the grid."""
        return list(cells_of_axes(self.axes, Range.grid))

    def probes(self) -> list[Parameters]:
        """List a few cells in which each value of each axis occurs, and both ends of each range."""
        probes, seen = [], set[tuple[str, str]]()
        for cell in cells_of_axes(self.axes, lambda values: [values.low, values.high]):
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
        return self.set | {axis.key: choice.value for axis, choice in self.chosen(parameters) if axis.key != LADDER}

    def config_of(self, config: dict[str, Any], parameters: Parameters, seed: int) -> dict[str, Any]:
        """Make the complete configuration of a run out of the base, less the folder that it goes to."""
        made = with_settings(config, {**self.settings(parameters), "seed_everything": seed})
        if self.ladder is None:
            return made
        return scaled(made, self.size(parameters) / depth_of(made), self.ladder.lr_exponent)

    def size(self, parameters: Parameters) -> int:
        """Return the number of layers of a cell on a ladder."""
        size = parameters[LADDER]
        assert isinstance(size, int)
        return size

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

    def is_baseline(self, parameters: Parameters) -> bool:
        """Whether a cell is of the choice that the others are compared with."""
        return tuple(parameters[axis.name] for axis in self.varied) == self.baseline_group

    def n_choices(self) -> int:
        """Count what is compared."""
        return len(set(map(self.choice_label, self.grid()))) if self.sampler == "grid" else self.n_cells()

    def label(self, parameters: Parameters) -> str:
        """Name a cell as a person would, such as ``sgd, lr=0.1``, or ``sgd, lr=0.1, 2 layers`` on a ladder."""
        size = [] if self.ladder is None else [layers(self.size(parameters))]
        return ", ".join([*self._parts(parameters), *size])

    def choice_label(self, parameters: Parameters) -> str:
        """Name what is compared, whatever its size, and with the best of what it has of its own if that is tuned."""
        own = {axis.name for axis in self.varied}
        return ", ".join(self._parts(parameters, own if self.tuning_seeds else None))

    def _parts(self, parameters: Parameters, names: Container[str] | None = None) -> list[str]:
        parts = []
        for axis, choice in self.chosen(parameters):
            if axis.key == LADDER or (names is not None and axis.name not in names):
                continue
            if axis not in self.axes and axis.range is None and len(axis.choices) == 1:
                continue  # what a choice sets to one value of its own, its label stands for
            shown = f"{choice.label:g}" if isinstance(choice.label, float) else str(choice.label)
            is_name = isinstance(choice.label, str) and self.varied == (axis,)
            parts.append(shown if is_name else f"{axis.key.rpartition('.')[2]}={shown}")
        return parts


def sweep_of(content: dict[str, Any], where: str) -> Sweep:
    """Make the sweep of a file's content."""
    check_fields(content, Sweep, where)
    if "parameters" not in content:
        raise InputError(f"the grid is empty: {where} has no parameters")
    base = content.get("base")
    if not base:
        raise InputError(f"{where} names no base configuration: add base, or give --base")
    made = {**content, "base": [base] if isinstance(base, str) else base}
    if made.get("ladder") is not None:
        made["ladder"] = ladder_of(made["ladder"])
    return Sweep(**made)
