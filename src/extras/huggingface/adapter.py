"""What the adapters of all architectures share: one network read from the other's tensors, and every one checked."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from src.architectures import architectures
from src.errors import InputError
from src.extras.huggingface.config_table import ConfigTable
from src.extras.huggingface.matching import Match, Tensors


@dataclass(frozen=True)
class Imported:
    """A network out of HuggingFace's format.

    Args:
        config: its shape, of the architecture's class.
        weights: by their names here, complete.
        untrained: parts by name that the files do not hold, and which have their first random weights.
    """

    config: Any
    weights: dict[str, Tensor]
    untrained: tuple[str, ...]


@dataclass(frozen=True)
class Exported:
    """A network in HuggingFace's format: ``config.json``, and the tensors of ``model.safetensors``."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]


class Adapter(ABC):
    """One architecture here and one of HuggingFace's.

    A subclass says by its table which keys of ``config.json`` correspond, and by :meth:`matches` which tensors do.
    """

    architecture: ClassVar[str]
    table: ClassVar[ConfigTable]
    # HuggingFace's classes that it reads
    reads: ClassVar[tuple[str, ...]]
    # in front of the names of the network without its heads; left out in files of that network alone
    prefix: ClassVar[str]
    # buffers of some files, which follow from the configuration
    derived: ClassVar[re.Pattern[str]]

    @abstractmethod
    def matches(self, config: Any) -> list[Match]:
        """The tensors of a network of this shape, each once."""

    @abstractmethod
    def tied(self, config: Any) -> dict[str, str]:
        """Names here of what is another tensor: the name, and that of the other, which :meth:`matches` has."""

    @abstractmethod
    def same(self, config: Any) -> dict[str, str]:
        """HuggingFace's further names of a tensor, which some files have: the name, and the one of the match."""

    @abstractmethod
    def model_class(self, untrained: tuple[str, ...]) -> str:
        """HuggingFace's class of a network without some of its parts."""

    def parts(self) -> dict[str, str]:
        """What a file may lack, by name: what HuggingFace's names of its tensors begin with."""
        return {}

    def today(self, name: str) -> str:
        """What the tensor of an older file is called today."""
        return name

    def read_fields(self, theirs: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
        """The fields of the configuration here, by ``config.json`` and by what it leaves to the tensors.

        Raises:
            InputError: naming the key of ``config.json`` that has no counterpart.
        """
        return self.table.read(theirs)

    def read_config(self, theirs: dict[str, Any], tensors: Tensors) -> Any:
        """The configuration here.

        Raises:
            InputError: naming the key of ``config.json`` that has no counterpart, or the field that cannot work.
        """
        fields = self.read_fields(theirs, tensors)
        try:
            return architectures()[self.architecture].config(**fields)
        except ValueError as error:
            raise InputError(f"config.json: {error}") from error

    def write_config(self, config: Any) -> dict[str, Any]:
        """HuggingFace's configuration, without what follows from the tokenizer.

        Raises:
            InputError: naming the field that has no counterpart.
        """
        return self.table.write(config)

    def read(self, theirs: dict[str, Any], tensors: Tensors) -> Imported:
        """A network of HuggingFace's, here.

        Raises:
            InputError: naming the key or tensor that has no counterpart, is missing, or is of another shape.
        """
        config = self.read_config(theirs, tensors)
        source = self._canonical(config, tensors)
        untrained = self._check_tensors(config, source)
        first = self._first_weights(config) if untrained else {}
        weights = {
            match.ours: match.read(source) if match.theirs[0] in source else first[match.ours]
            for match in self.matches(config)
        }
        weights |= {name: weights[other] for name, other in self.tied(config).items()}
        return Imported(config, weights, untrained)

    def write(self, config: Any, weights: Tensors, untrained: tuple[str, ...] = ()) -> Exported:
        """A network here, as one of HuggingFace's, without the parts that were never trained.

        Raises:
            InputError: naming what has no counterpart.
        """
        kind = self.model_class(untrained)
        dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
        theirs = {"architectures": [kind], **self.write_config(config), "dtype": dtype}
        left_out = tuple(self.parts()[part] for part in untrained)
        tensors = {n: t for n, t in self._written(config, weights).items() if not n.startswith(left_out)}
        if kind.endswith("Model") and untrained:
            tensors = {name.removeprefix(self.prefix): tensor for name, tensor in tensors.items()}
        return Exported(theirs, tensors)

    def with_tokens(self, exported: Exported, tokens: dict[str, Any]) -> Exported:
        """Add what ``config.json`` says of the tokenizer."""
        return Exported(exported.config | tokens, exported.tensors)

    def _written(self, config: Any, weights: Tensors) -> dict[str, Tensor]:
        return {name: t for match in self.matches(config) for name, t in match.write(weights[match.ours]).items()}

    def _first_weights(self, config: Any) -> dict[str, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return architectures()[self.architecture].network(config).state_dict()

    def _canonical(self, config: Any, tensors: Tensors) -> dict[str, Tensor]:
        """The tensors by one name each: with the prefix, without buffers, and without second names of one tensor."""
        found = {self.today(name): tensor for name, tensor in tensors.items() if not self.derived.search(name)}
        if not any(name.startswith(self.prefix) for name in found):
            bare = {name.removeprefix(self.prefix) for match in self.matches(config) for name in match.theirs}
            found = {self.prefix + name if name in bare else name: tensor for name, tensor in found.items()}
        for name, other in self.same(config).items():
            if name not in found:
                continue
            tensor = found.pop(name)
            if not torch.equal(tensor, found.setdefault(other, tensor)):
                raise InputError(f"tensor {name} differs from {other}: here the two are one")
        return found

    def _check_tensors(self, config: Any, found: Tensors) -> tuple[str, ...]:
        """Refuse tensors that are missing, unknown or of another shape; gives the parts that are missing whole."""
        with torch.device("meta"):
            model = architectures()[self.architecture].network(config)
        expected = self._written(config, model.state_dict())
        untrained = []
        for part, prefix in self.parts().items():
            if not any(name.startswith(prefix) for name in found):
                untrained.append(part)
                expected = {name: tensor for name, tensor in expected.items() if not name.startswith(prefix)}
        _refuse("has no tensor", expected.keys() - found.keys())
        _refuse("has a tensor that the network here has not:", found.keys() - expected.keys())
        for name, tensor in expected.items():
            if found[name].shape != tensor.shape:
                shapes = [" x ".join(map(str, t.shape)) for t in (found[name], tensor)]
                raise InputError(f"tensor {name} is {shapes[0]}: by config.json it must be {shapes[1]}")
        return tuple(untrained)


def _refuse(what: str, names: set[str]) -> None:
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise InputError(f"the model {what} {min(names)}{more}")
