"""consolidate: one ordinary checkpoint file from the folder of a sharded one."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.checkpoint import AVERAGED, network_names, read_header, save_checkpoint, tied_names
from src.cli.parser import VerbParser
from src.errors import InputError


def parser() -> VerbParser:
    """The options of `consolidate`."""
    options = VerbParser(prog="python -m src consolidate", description=__doc__)
    options.add_argument("--checkpoint", required=True, metavar="FOLDER", help="as FSDP or ZeRO saved it")
    options.add_argument("--output", required=True, metavar="PATH", help="the file to write")
    return options


def _mesh_weights(folder: Path) -> dict[str, Tensor]:
    """The weights in the shards that :class:`MeshStrategy` writes; optimizer state is not read."""
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    reader, prefix = FileSystemReader(folder), "state_dict."
    weights = {
        name: torch.empty(stored.size, dtype=stored.properties.dtype)
        for name, stored in reader.read_metadata().state_dict_metadata.items()
        if name.startswith(prefix) and isinstance(stored, TensorStorageMetadata)
    }
    load(weights, storage_reader=reader, no_dist=True)
    return {name.removeprefix(prefix): weight for name, weight in weights.items()}


def _zero_weights(folder: Path) -> dict[str, Tensor]:
    """The weights in the parts that DeepSpeed writes, by its own code."""
    from src.distributed.saving import plain_deepspeed

    try:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
    except ImportError as error:
        raise InputError(f"{folder} was written by DeepSpeed, which is not installed: see the README") from error
    with plain_deepspeed():
        return get_fp32_state_dict_from_zero_checkpoint(str(folder), tag="checkpoint")


def _with_tied(weights: dict[str, Tensor], header: dict[str, Any]) -> dict[str, Tensor]:
    """The network's weights under every name of a tied one, of which DeepSpeed leaves some out."""
    names = network_names(header)
    for group in tied_names(header):
        held = next(name for name in group if name in weights)
        weights = {**dict.fromkeys(group, weights[held]), **weights}
    return {name: weights[name] for name in names}


def consolidate(folder: Path) -> dict[str, Any]:
    """An ordinary checkpoint with the weights of a sharded one.

    It holds no state of an optimizer: training goes on from the folder itself.

    Raises:
        InputError: the folder is no sharded checkpoint, or is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: only sharded checkpoints are consolidated")
    from torch.distributed.checkpoint.api import CheckpointException

    header = read_header(folder)
    try:
        weights = _zero_weights(folder) if (folder / "checkpoint").is_dir() else _mesh_weights(folder)
        parts = {"state_dict": _with_tied(weights, header)}
        if (folder / AVERAGED).is_file():
            averaged = torch.load(folder / AVERAGED, map_location="cpu", weights_only=True)
            parts = {"state_dict": averaged, "plain_weights": parts["state_dict"]}
    except InputError:
        raise
    except (Exception, CheckpointException) as error:  # whatever the libraries meet in a damaged shard
        raise InputError(f"{folder} is incomplete or damaged ({type(error).__name__}): use another one") from error
    return {**header, **parts}


def main(arguments: list[str]) -> None:
    """Write the file, whole or not at all.

    Raises:
        InputError: as :func:`consolidate`, or there is no folder to write into.
    """
    options = parser().parse_args(arguments[1:])
    output = Path(options.output)
    save_checkpoint(consolidate(Path(options.checkpoint)), output)
    print(f"wrote {output}")
