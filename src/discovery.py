"""The extras that are here. Each is a folder of ``src/extras``, found by its presence and taken out by ``rm -r``.

The core asks an extra for its parts by name: ``VERBS`` of the folder itself, and its modules ``architectures`` (entries
of the registry), ``tasks``, ``data`` and ``callbacks`` (classes that a configuration names), ``merging`` (which merges
what it adds to the weights of a checkpoint) and ``plan`` (what a run's plan says of its network), where it has them.
Another extra, which it does not know, may ask for ``served`` (what is offered by HTTP).
"""

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

EXTRAS = Path(__file__).parent / "extras"


def extras() -> list[str]:
    """List the modules of the extras, ``src.extras.NAME``."""
    return [f"src.extras.{module.name}" for module in iter_modules([str(EXTRAS)]) if module.ispkg]


def parts(name: str) -> Iterator[ModuleType]:
    """Import the module ``name`` of each extra that has one."""
    for extra in extras():
        if find_spec(f"{extra}.{name}"):
            yield import_module(f"{extra}.{name}")


def verbs() -> dict[str, tuple[str, str]]:
    """Map each verb of the extras to its function, ``MODULE:FUNCTION``, and to what it does."""
    return {verb: entry for extra in extras() for verb, entry in import_module(extra).VERBS.items()}
