"""What a configuration may name: it is data from anywhere, and to name a class is to run its code."""

from importlib import import_module

from jsonargparse import set_parsing_settings

from src.errors import InputError

# packages whose classes are configured, and the module of PyTorch's own values (datetime: `trainer.max_time`)
ALLOWED = ["src", "torch", "lightning", "pytorch_lightning", "torchmetrics", "datetime"]
# parts of them that load or build code from what a configuration would name
DENIED = [
    "torch.hub",
    "torch.load",
    "torch.serialization",
    "torch.package",
    "torch.jit",
    "torch.classes",
    "torch.ops",
    "torch.utils.cpp_extension",
    "torch.distributed.run",
    "torch.distributed.launch",
    "torch.distributed.elastic",
    "torch.multiprocessing",
    "lightning.pytorch.cli",
    "lightning.app",
]


_allowed_before: set[str] = set()


def allow_class_paths(more: list[str]) -> None:
    """Restrict what a configuration may name to those packages, before anything is imported for it.

    Args:
        more: modules of the user's own, for this command; those of the one before are forgotten. They are imported, so
            that they register their architectures.
    """
    forgotten = _allowed_before - {*more, *ALLOWED}
    try:
        set_parsing_settings(import_path_denylist=["*", *DENIED, *forgotten], import_path_allowlist=[*ALLOWED, *more])
    except ValueError as error:
        raise InputError(f"--allow_class_paths {' '.join(more)}: {error}") from error
    _allowed_before.update(more)
    import_modules(more)


def import_modules(names: list[str]) -> None:
    """Import modules of the user's own."""
    for name in names:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name not in name:
                raise
            raise InputError(f"--allow_class_paths {name}: there is no such module") from error
