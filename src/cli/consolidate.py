"""consolidate: one ordinary checkpoint file from the folder of a sharded one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.errors import InputError
from src.files import check_new

if TYPE_CHECKING:
    from torch import Tensor


def consolidate(checkpoint: Path, output: Path) -> None:
    """Make one file of the folder of a sharded checkpoint, to use it; training goes on from the folder itself.

    Args:
        checkpoint: a folder, as FSDP or ZeRO saved it
        output: a new checkpoint
    """
    # with torch, for which help does not wait
    import torch

    from src.checkpoint import AVERAGED, check_bytes, read_header, save_checkpoint, without_training

    check_new(output)
    if not checkpoint.is_dir():
        raise InputError(f"{checkpoint} is no folder: only sharded checkpoints are consolidated")
    from src.distributed.shards import read_weights  # with Lightning, which nothing else here needs

    header = read_header(checkpoint)
    check_bytes(checkpoint)
    try:
        is_zero = (checkpoint / "checkpoint").is_dir()
        weights = _zero_weights(checkpoint) if is_zero else read_weights(checkpoint, header)
        content = {**without_training(header), "state_dict": _with_tied(weights, header)}
        if (checkpoint / AVERAGED).is_file():
            content["plain_weights"] = content["state_dict"]
            content["state_dict"] = torch.load(checkpoint / AVERAGED, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # whatever the libraries meet in a damaged shard
        raise InputError(f"{checkpoint} is incomplete or damaged ({type(error).__name__}): use another one") from error
    save_checkpoint(content, output)
    print(f"wrote {output}")


def _zero_weights(folder: Path) -> dict[str, "Tensor"]:
    """Read the weights in the parts that DeepSpeed writes, by its own code."""
    try:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
    except ImportError as error:
        raise InputError(f"{folder} was written by DeepSpeed, which is not installed: see the README") from error
    from src.distributed.saving import plain_deepspeed

    with plain_deepspeed():
        return get_fp32_state_dict_from_zero_checkpoint(str(folder), tag="checkpoint")


def _with_tied(weights: dict[str, "Tensor"], header: dict[str, Any]) -> dict[str, "Tensor"]:
    """Give the network's weights under every name of a tied one, of which DeepSpeed leaves some out."""
    from src.checkpoint import network_names, tied_names

    names = network_names(header)
    for group in tied_names(header):
        held = next(name for name in group if name in weights)
        weights = {**dict.fromkeys(group, weights[held]), **weights}
    return {name: weights[name] for name in names} | weights  # what an extra has added as well, such as adapters
