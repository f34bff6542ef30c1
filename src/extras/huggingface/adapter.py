"""What the adapters of all architectures share: how tensors, configurations and special tokens correspond."""

import re
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from tokenizers import Tokenizer
from torch import Tensor

from src.architectures import architectures
from src.encoder import Pooling
from src.errors import InputError
from src.extras.huggingface.json_files import setting
from src.extras.huggingface.matches import Match, Tensors
from src.nn import BlockConfig, NormPlacement

Settings = dict[str, Any]

# ours -> HuggingFace's names, the one to write first; `elu` and the gated ones these networks have not there
ACTIVATIONS = {
    "relu": ("relu",),
    "leaky_relu": ("leaky_relu",),
    "prelu": ("prelu",),
    "sigmoid": ("sigmoid",),
    "tanh": ("tanh",),
    "swish": ("silu", "swish"),
    "gelu": ("gelu", "gelu_python"),
    "gelu_tanh": ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast"),
    "relu2": ("relu2",),
}
DTYPES = {
    str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
}
UNGATED = {"swiglu": "swish", "geglu": "gelu"}  # the activation of the gate


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
    """A network in HuggingFace's format.

    Args:
        config: what ``config.json`` holds.
        tensors: of ``model.safetensors``.
        left_out: trained parts of the network that the format has no place for.
    """

    config: Settings
    tensors: dict[str, Tensor]
    left_out: tuple[str, ...] = ()


class Adapter(ABC):
    """One architecture here and one of HuggingFace's. What cannot be converted exactly is an `InputError`."""

    architecture: ClassVar[str]
    model_type: ClassVar[str]
    # HuggingFace's classes, first the one of a complete network: the class that loads any of its kind, and the task
    # that the hub shows
    classes: ClassVar[dict[str, tuple[str, str]]]
    programs: ClassVar[tuple[str, ...]] = ()  # that load it, besides `transformers`: the table of interoperability.md
    reads_back = True  # whether those classes are read as this architecture

    # field here -> key of config.json, and its value where that leaves it out (a number is read where that is None)
    keys: ClassVar[dict[str, tuple[str, Any]]]
    activation: ClassVar[tuple[str, str]]  # the key of the activation, and its default
    norm: ClassVar[NormPlacement]
    fixed: ClassVar[Settings]  # keys whose other values no network here has
    unwritten: ClassVar[Settings] = {}  # further such keys, which files leave out
    aliases: ClassVar[dict[str, str]] = {}  # further names of keys, which `transformers` takes as well
    only: ClassVar[Settings] = {"window": None}  # fields here whose other values no network of HuggingFace's has
    # choices in the blocks that are not in `keys` and yet may differ from their default; all others may not
    handled: ClassVar[frozenset[str]] = frozenset(
        {"activation", "norm", "attention", "window", "dilation", "dropout", "attention_dropout", "zero_init"}
    )

    # the peak learning rate of fine-tuning: 5e-5 is the default of HuggingFace's Trainer, with which its examples (in
    # examples/pytorch/language-modeling) fine-tune GPT-2, and the largest of BERT's recipe
    fine_tuning_lr: ClassVar[float] = 5e-5

    # begins the names of the network without its heads; left out in files of that network alone
    prefix: ClassVar[str]
    buffers: ClassVar[re.Pattern[str]]  # of some files, which follow from the configuration
    # what a file may lack, by name here: what HuggingFace's names of its tensors begin with
    parts: ClassVar[dict[str, str | tuple[str, ...]]] = {}

    def left_out(self, untrained: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Name the trained parts that HuggingFace's network of :meth:`model_class` has no place for."""
        return ()

    @abstractmethod
    def matches(self, config: Any) -> list[Match]:
        """List the tensors of a network of this shape, each once."""

    def model_class(self, untrained: tuple[str, ...]) -> str:
        """Name HuggingFace's class of a network without some of its parts."""
        return next(iter(self.classes))

    def read_fields(self, theirs: Settings, tensors: Tensors) -> Settings:
        """Make the fields of the configuration here of ``config.json``, and of what it leaves to the tensors."""
        for key, value in {**self.unwritten, **self.fixed}.items():
            if setting(theirs, key, type(value), value) != value:
                raise InputError(f"config.json has {key} {theirs[key]!r}: the network here can only have {value!r}")
        key, default = self.activation
        activation = setting(theirs, key, str, default)
        ours = next((name for name, names in ACTIVATIONS.items() if activation in names), None)
        if ours is None:
            known = ", ".join(name for names in ACTIVATIONS.values() for name in names)
            raise InputError(f"config.json has {key} {activation!r}, which is none of {known}")
        fields: Settings = {
            name: setting(theirs, key, int if default is None else type(default), default)
            for name, (key, default) in self.keys.items()
        }
        width = setting(theirs, "head_dim", int, None)
        if "head_dim" not in fields and width is not None and width * fields["n_heads"] != fields["d_model"]:
            raise InputError(
                f"config.json has head_dim {width}: heads here are {fields['d_model']} / {fields['n_heads']} wide"
            )
        if fields["d_ff"] == 4 * fields["d_model"]:
            fields["d_ff"] = None
        return {**fields, "activation": ours, "norm": self.norm}

    def read_config(self, theirs: Settings, tensors: Tensors) -> Any:
        """Make the configuration here."""
        fields = self.read_fields(theirs, tensors)
        try:
            return architectures()[self.architecture].config(**fields)
        except ValueError as error:
            raise InputError(f"config.json: {error}") from error

    def suits(self, config: Any) -> bool:
        """Whether this is the format of such a network, by what tells the formats of an architecture apart."""
        return bool(config.norm == self.norm)

    def check(self, config: Any) -> None:
        """Refuse a shape that no network of HuggingFace's has."""
        name = f"HuggingFace's {self.model_type}"
        if config.activation not in ACTIVATIONS:
            raise InputError(f"{name} has no activation {config.activation!r}: the network cannot be exported")
        if config.norm != self.norm:
            with_it = f"; --model.config.norm {self.norm} trains one that can" if self._takes_other_norm(config) else ""
            raise InputError(
                f"{name} has norm {self.norm!r}: a network with {config.norm!r} cannot be exported{with_it}"
            )
        choices = {field.name: field.default for field in fields(config) if field.name in BlockConfig.__annotations__}
        defaults = {n: default for n, default in choices.items() if n not in self.keys.keys() | self.handled}
        for field, value in {**defaults, **self.only}.items():
            if (held := getattr(config, field)) != value:
                raise InputError(f"{name} has only {field} {value!r}: a network with {held!r} cannot be exported")

    def _takes_other_norm(self, config: Any) -> bool:
        """Whether the placement of the norms is all that keeps a network from being exported."""
        try:
            self.check(replace(config, norm=self.norm))
        except (InputError, ValueError):
            return False
        return True

    def write_config(self, config: Any) -> Settings:
        """Make ``config.json``, without what follows from the tokenizer."""
        values = {**asdict(config), "d_ff": config.d_ff or 4 * config.d_model}
        return {
            "model_type": self.model_type,
            **{key: values[field] for field, (key, _) in self.keys.items()},
            self.activation[0]: ACTIVATIONS[config.activation][0],
            **self.fixed,
        }

    def read(self, theirs: Settings, tensors: Tensors) -> Imported:
        """Convert a network of HuggingFace's, whose every key and tensor is checked."""
        for alias, key in self.aliases.items():
            if (value := theirs.get(alias)) is not None:
                if theirs.get(key) not in (None, value):
                    raise InputError(f"config.json has {key} {theirs[key]!r} and {alias} {value!r}: the two are one")
                theirs = {**theirs, key: value}
        for name, tensor in tensors.items():
            if not self.buffers.search(name) and not _holds_numbers(tensor):
                kind = str(tensor.dtype if tensor.layout == torch.strided else tensor.layout).removeprefix("torch.")
                raise InputError(f"tensor {name} is {kind}: weights are read as {', '.join(DTYPES)} alone")
        return self.convert(theirs, tensors)

    def convert(self, theirs: Settings, tensors: Tensors) -> Imported:
        """Convert a network, the kinds of whose keys and tensors are known."""
        config = self.read_config(theirs, tensors)
        n_layers = sum(getattr(config, name, 0) for name in ("n_layers", "n_encoder_layers", "n_decoder_layers"))
        if n_layers > len(tensors):  # before as many tensors are named
            raise InputError(f"config.json has {n_layers:,} layers, and the model {len(tensors):,} tensors")
        source = self._canonical(config, tensors)
        untrained = self._check_tensors(config, source)
        first = self._first_weights(config) if untrained else {}
        weights: dict[str, Tensor] = {}
        for match in self.matches(config):
            weight = match.read(source) if match.theirs[0] in source else first[match.ours]
            weights |= dict.fromkeys((match.ours, *match.tied), weight)
        return Imported(config, weights, untrained)

    def write(self, config: Any, weights: Tensors, tokens: Settings, untrained: tuple[str, ...] = ()) -> Exported:
        """Convert a network here, without the parts that were never trained.

        Args:
            config: its shape.
            weights: by name.
            tokens: what :meth:`config_tokens` gives.
            untrained: names of :attr:`parts`.
        """
        kind = self.model_class(untrained)
        dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
        theirs = {"architectures": [kind], **self.write_config(config), "dtype": dtype, **tokens}
        left_out = self.left_out(untrained)
        without = [self.parts[part] for part in (*untrained, *left_out)]
        tensors = self._written(config, weights)
        tensors = {n: t for n, t in tensors.items() if not any(n.startswith(prefix) for prefix in without)}
        if kind.endswith("Model") and untrained:
            tensors = {name.removeprefix(self.prefix): tensor for name, tensor in tensors.items()}
        return Exported(theirs, tensors, left_out)

    # ---- tokens

    @abstractmethod
    def special_tokens(self, theirs: Settings, folder: Path, source: Tokenizer, target: Tokenizer) -> dict[str, str]:
        """Find the special tokens that a checkpoint names."""

    @abstractmethod
    def config_tokens(self, checkpoint: Settings) -> Settings:
        """Make what ``config.json`` says of a checkpoint's tokens."""

    @abstractmethod
    def write_tokenizers(self, checkpoint: Settings, length: int, folder: Path) -> None:
        """Write the tokenizers of a checkpoint whose network takes texts of a length."""

    def generation(self, config: Any, tokens: Settings) -> Settings:
        """Say how ``generate`` pads and searches if nothing else is said; nothing for what does not generate."""
        return {}

    def data_options(self, config: Any, special: dict[str, str], tokenizer: Tokenizer) -> Settings:
        """Give what the data of a run from the import need beside its tokenizer and the length of the network."""
        return {}

    def note(self, checkpoint: Settings) -> str:
        """Say in the model card what a user of the export would not expect."""
        return ""

    def pooling(self, checkpoint: Settings) -> Pooling | None:
        """Say how `sentence-transformers` encodes texts by the export; None for what is no sentence encoder."""
        return Pooling(**checkpoint["sentence_encoder"]) if "sentence_encoder" in checkpoint else None

    # ---- tensors

    def _written(self, config: Any, weights: Tensors) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for match in self.matches(config):
            for name, tensor in match.write(weights[match.ours]).items():
                found[name] = torch.cat([found[name], tensor]) if match.part[0] else tensor
        return found

    def _first_weights(self, config: Any) -> dict[str, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return architectures()[self.architecture].network(config).state_dict()

    def _canonical(self, config: Any, tensors: Tensors) -> dict[str, Tensor]:
        """Name each tensor once: as today, with the prefix, without buffers, and without further names."""
        found = {_today(name): tensor for name, tensor in tensors.items() if not self.buffers.search(name)}
        matches = self.matches(config)
        if not any(name.startswith(self.prefix) for name in found):
            bare = {name.removeprefix(self.prefix) for match in matches for name in match.theirs}
            found = {self.prefix + name if name in bare else name: tensor for name, tensor in found.items()}
        for alias, name in {alias: match.theirs[0] for match in matches for alias in match.aliases}.items():
            if alias in found:
                tensor = found.pop(alias)
                if not torch.equal(tensor, found.setdefault(name, tensor)):
                    raise InputError(f"tensor {alias} differs from {name}: here the two are one")
        return found

    def _check_tensors(self, config: Any, found: Tensors) -> tuple[str, ...]:
        """Refuse tensors that are missing, unknown or of another shape; gives the parts that are missing as a whole."""
        with torch.device("meta"):
            model = architectures()[self.architecture].network(config)
        expected = self._written(config, model.state_dict())
        untrained = []
        for part, prefix in self.parts.items():
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


def _holds_numbers(tensor: Tensor) -> bool:
    return tensor.dtype in DTYPES.values() and tensor.layout == torch.strided and not tensor.is_meta


def _today(name: str) -> str:
    """Rename a tensor of BERT's first files, which were converted from TensorFlow."""
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))


def _refuse(what: str, names: set[str]) -> None:
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise InputError(f"the model {what} {min(names)}{more}")
