"""Configurations by tables: which keys of HuggingFace's ``config.json`` are which fields here."""

from dataclasses import asdict, dataclass, field
from typing import Any

from src.errors import InputError
from src.extras.huggingface.settings import setting
from src.nn import NormPlacement

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
}


@dataclass(frozen=True)
class ConfigTable:
    """How two configurations of one architecture correspond.

    Args:
        model_type: HuggingFace's name of the architecture.
        keys: field here -> HuggingFace's key, and what that is where ``config.json`` leaves it out; a number of its
            own where that is None.
        activation: HuggingFace's key of the activation, and its default.
        norm: where HuggingFace's network norms.
        fixed: HuggingFace's keys whose other values no network here has.
        only: fields here whose other values no network of HuggingFace's has.
    """

    model_type: str
    keys: dict[str, tuple[str, Any]]
    activation: tuple[str, str]
    norm: NormPlacement
    fixed: dict[str, Any]
    only: dict[str, Any] = field(default_factory=dict)

    def read(self, theirs: dict[str, Any]) -> dict[str, Any]:
        """The fields here.

        Raises:
            InputError: a key has a value of another type, or without a counterpart.
        """
        for key, value in self.fixed.items():
            if setting(theirs, key, type(value), value) != value:
                raise InputError(f"config.json has {key} {theirs[key]!r}: the network here can only have {value!r}")
        key, default = self.activation
        activation = setting(theirs, key, str, default)
        ours = next((name for name, names in ACTIVATIONS.items() if activation in names), None)
        if ours is None:
            known = ", ".join(name for names in ACTIVATIONS.values() for name in names)
            raise InputError(f"config.json has {key} {activation!r}, which is none of {known}")
        values: dict[str, Any] = {
            name: setting(theirs, key, int if default is None else type(default), default)
            for name, (key, default) in self.keys.items()
        }
        if values["d_ff"] == 4 * values["d_model"]:
            values["d_ff"] = None
        return {**values, "activation": ours, "norm": self.norm}

    def write(self, config: Any) -> dict[str, Any]:
        """HuggingFace's keys.

        Raises:
            InputError: a field has a value without a counterpart.
        """
        if config.activation not in ACTIVATIONS:
            raise InputError(
                f"HuggingFace's {self.model_type} has no activation {config.activation!r}: the network cannot be "
                "exported"
            )
        if config.norm != self.norm:
            raise InputError(
                f"HuggingFace's {self.model_type} has norm {self.norm!r}: a network with {config.norm!r} cannot be "
                "exported"
            )
        for name, value in self.only.items():
            if getattr(config, name) != value:
                raise InputError(
                    f"HuggingFace's {self.model_type} has only {name} {value!r}: a network with "
                    f"{getattr(config, name)!r} cannot be exported"
                )
        values = {**asdict(config), "d_ff": config.d_ff or 4 * config.d_model}
        return {
            "model_type": self.model_type,
            **{key: values[name] for name, (key, _) in self.keys.items()},
            self.activation[0]: ACTIVATIONS[config.activation][0],
            **self.fixed,
        }
