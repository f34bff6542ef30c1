"""Which blocks of a network have a window: ``layer_types`` in HuggingFace's config.json, ``window_pattern`` here."""

from collections.abc import Sequence

from src.errors import InputError
from src.extras.huggingface.json_files import list_setting, shown
from src.nn import BlockConfig

FULL, SLIDING = "full_attention", "sliding_attention"


def read_kinds(theirs: dict[str, object], default: Sequence[str]) -> list[str]:
    """Read the kind of each block; ``default`` where the file does not say it."""
    kinds = list_setting(theirs, "layer_types", str) or list(default)
    if len(kinds) != len(default) or set(kinds) - {FULL, SLIDING}:
        raise InputError(
            f"config.json has layer_types {shown(kinds)}: there must be {FULL} or {SLIDING} for each of the "
            f"{len(default)} layers"
        )
    return kinds


def pattern_of(kinds: Sequence[str]) -> str:
    """Find the shortest ``window_pattern`` that gives, repeated, the kinds of all blocks."""
    letters = "".join("L" if kind == SLIDING else "G" for kind in kinds)
    n = len(letters)
    return next(letters[:i] for i in range(1, n + 1) if (letters[:i] * n)[:n] == letters)


def windows_of(config: BlockConfig, n_layers: int) -> tuple[list[str], set[int]]:
    """Give the kind of each block, and the windows that there are."""
    windows = [config.window_of(layer) for layer in range(n_layers)]
    return [FULL if window is None else SLIDING for window in windows], {w for w in windows if w is not None}
