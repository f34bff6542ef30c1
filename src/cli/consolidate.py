"""consolidate: one ordinary checkpoint file from the folder of a sharded one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def consolidate(checkpoint: Path, output: Path) -> None:
    """Make one file of the folder of a sharded checkpoint, to use it; training goes on from the folder itself.

    Args:
        checkpoint: a folder, as FSDP or ZeRO saved it
        output: the file to write
    """
    # with torch, for which help does not wait
    import torch
    from torch.distributed.checkpoint.api import CheckpointException

    from src.checkpoint import AVERAGED, read_header, save_checkpoint

    if not checkpoint.is_dir():
        raise InputError(f"{checkpoint} is no folder: only sharded checkpoints are consolidated")
    header = read_header(checkpoint)
    try:
        weights = _zero_weights(checkpoint) if (checkpoint / "checkpoint").is_dir() else _mesh_weights(checkpoint)
        content = {**header, "state_dict": _with_tied(weights, header)}
        if (checkpoint / AVERAGED).is_file():
            content["plain_weights"] = content["state_dict"]
            content["state_dict"] = torch.load(checkpoint / AVERAGED, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except (Exception, CheckpointException) as error:  # whatever the libraries meet in a damaged shard
        raise InputError(f"{checkpoint} is incomplete or damaged ({type(error).__name__}): use another one") from error
    save_checkpoint(content, output)
    print(f"wrote {output}")


def _mesh_weights(folder: Path) -> dict[str, "Tensor"]:
    """Read the weights in the shards that :class:`MeshStrategy` writes, without the state of the optimizer."""
    import torch
    from torch.distributed.checkpoint import FileSystemReader, load
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    reader, prefix = FileSystemReader(folder), "state_dict."
    weights = {
        name: torch.empty(stored.size, dtype=stored.properties.dtype)
        for name, stored in reader.read_metadata().state_dict_metadata.items()
        if name.startswith(prefix) and isinstance(stored, TensorStorageMetadata)
    }
    load(weights, storage_reader=reader, no_dist=True)
    return {name.removeprefix(prefix): weight for name, weight in weights.items()}


def _zero_weights(folder: Path) -> dict[str, "Tensor"]:
    """Read the weights in the parts that DeepSpeed writes, by its own code."""
    try:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
    except ImportError as error:
        raise InputError(f"{folder} was written by DeepSpeed, which is not installed: see the README") from error
    from src.distributed.saving import plain_deepspeed  # with Lightning, which nothing else here needs

    with plain_deepspeed():
        return get_fp32_state_dict_from_zero_checkpoint(str(folder), tag="checkpoint")


def _with_tied(weights: dict[str, "Tensor"], header: dict[str, Any]) -> dict[str, "Tensor"]:
    """Give the network's weights under every name of a tied one, of which DeepSpeed leaves some out."""
    from src.checkpoint import network_names, tied_names

    names = network_names(header)
    for group in tied_names(header):
        held = next(name for name in group if name in weights)
        weights = {**dict.fromkeys(group, weights[held]), **weights}
    return {name: weights[name] for name in names}
