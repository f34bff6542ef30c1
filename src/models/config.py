"""Checks that every architecture's configuration shares."""

from typing import Any

from src.nn import ACTIVATIONS


def check(config: Any) -> None:
    """Raise ``ValueError`` at the first field of a model's configuration that cannot work, naming it and its value.

    The fields are checked by their names, which mean the same in every architecture.
    """
    values = vars(config)
    for name, value in values.items():
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise ValueError(f"{name} is {value}: it must be at least 1")
        if "dropout" in name and not 0 <= value < 1:
            raise ValueError(f"{name} is {value}: it must be at least 0 and less than 1")
    if values["d_model"] % values["n_heads"]:
        raise ValueError(f"d_model {config.d_model} is not divisible by n_heads {config.n_heads}")
    if values["activation"] not in ACTIVATIONS:
        raise ValueError(f"unknown activation {config.activation!r}: choose one of {', '.join(ACTIVATIONS)}")
    if values["norm"] not in ("pre", "post"):
        raise ValueError(f"norm is {config.norm!r}: choose 'pre' or 'post'")
