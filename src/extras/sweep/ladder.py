"""A ladder: the choices of a sweep at several sizes, with everything scaled by one dial, the number of layers."""

from dataclasses import dataclass
from typing import Any

from src.errors import InputError
from src.extras.sweep.configuration import setting, with_settings

LAYERS = ("model.config.n_layers", "model.config.n_encoder_layers", "model.config.n_decoder_layers")
WIDTHS = ("model.config.d_model", "model.config.n_heads")
STEPS = (
    *("trainer.max_steps", "trainer.val_check_interval"),
    *("model.schedule.warmup_steps", "model.schedule.decay_steps"),
)
RATE = "model.optimizer.lr"


@dataclass(frozen=True)
class Ladder:
    """The sizes of a ladder, and how what is trained with follows from them.

    With L layers in place of the base's B, let f = L / B. Layers, width and heads are multiplied by f, so that the
    width of a head stays, and parameters grow as f^3. So do the steps, and with them the tokens: a fixed number of
    tokens a parameter (Hoffmann et al. 2022). The learning rate is multiplied by f^``lr_exponent``, and ``init_std``,
    where the base gives it, by f^-0.5.

    Args:
        sizes: numbers of layers, three or more, ascending.
        lr_exponent: -1 is that of Adam's learning rate for matrices by their width (Yang et al. 2022); 0 suits an
            optimizer whose updates do not grow with the width.
    """

    sizes: list[int]
    lr_exponent: float = -1.0

    def __post_init__(self) -> None:
        whole = isinstance(self.sizes, list) and all(type(size) is int and size > 0 for size in self.sizes)
        if not whole or len(self.sizes) < 3 or sorted(set(self.sizes)) != self.sizes:
            raise InputError(f"ladder.sizes is {self.sizes}: it must be three or more numbers of layers, ascending")
        if type(self.lr_exponent) not in (int, float):
            raise InputError(f"ladder.lr_exponent is {self.lr_exponent!r}: it must be a number")


def ladder_of(content: Any) -> Ladder:
    """Make a ladder of what a sweep file says: its sizes alone, or a mapping."""
    try:
        return Ladder(**content) if isinstance(content, dict) else Ladder(content)
    except TypeError as error:
        raise InputError(f"ladder is {content}: it has sizes, and lr_exponent where that is not -1") from error


def layers(size: int) -> str:
    """Name a size."""
    return f"{size} layer" + ("s" if size > 1 else "")


def depth_of(config: dict[str, Any]) -> int:
    """Return the number of layers of a base configuration."""
    depth = next((n for key in LAYERS if isinstance(n := setting(config, key), int)), None)
    if depth is None:
        raise InputError(f"a ladder scales {LAYERS[0]}, which the base does not give: name a number")
    return depth


def scaled(config: dict[str, Any], factor: float, lr_exponent: float) -> dict[str, Any]:
    """Scale a complete configuration by a factor of its layers, as :class:`Ladder` says."""
    settings: dict[str, Any] = {}
    for key in (*LAYERS, *WIDTHS):
        value = setting(config, key)
        if value is None and key in LAYERS:
            continue
        if not isinstance(value, int) or abs(value * factor - round(value * factor)) > 1e-6:
            raise InputError(f"{key} is {value}: times {factor:g}, for this size of the ladder, it is no whole number")
        settings[key] = round(value * factor)
    if (d_ff := setting(config, "model.config.d_ff")) is not None:
        settings["model.config.d_ff"] = round(d_ff * factor)
    if isinstance(deviation := setting(config, "model.config.init_std"), float):
        settings["model.config.init_std"] = float(f"{deviation * factor**-0.5:.6g}")
    for key in STEPS:
        if isinstance(value := setting(config, key), int):
            settings[key] = max(1, round(value * factor**3)) if value else 0
    rate = setting(config, RATE)
    if type(rate) not in (int, float):
        raise InputError(f"a ladder scales {RATE}, which is {rate}: name a number")
    settings[RATE] = float(f"{rate * factor**lr_exponent:.6g}")
    return with_settings(config, settings)
