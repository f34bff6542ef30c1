"""average: the weights of several checkpoints of a run, averaged into one (Vaswani et al. 2017, section 6.1)."""

from pathlib import Path
from typing import Any

from src.errors import InputError
from src.files import check_new


def average(checkpoints: tuple[str, ...], output: Path) -> None:
    """Average the weights of checkpoints; all else is of the one with the most steps, and no state of an optimizer.

    Args:
        checkpoints: two or more, of one network
        output: a new checkpoint
    """
    # with torch, for which help does not wait
    from src.checkpoint import check_compatible, read_checkpoint, save_checkpoint, without_training

    check_new(output)
    if len(checkpoints) < 2:
        raise InputError("one checkpoint has no average: name two or more")
    first = newest = read_checkpoint(checkpoints[0])
    steps = _steps(first, checkpoints[0])
    total = {name: weight.double() for name, weight in first["state_dict"].items()}
    for path in checkpoints[1:]:
        checkpoint = read_checkpoint(path)
        try:
            check_compatible(checkpoint, first["architecture"], first["model_config"], first["tokenizer"])
        except InputError as error:
            raise InputError(f"{path} and {checkpoints[0]} cannot be averaged: {error}") from error
        for name, weight in checkpoint["state_dict"].items():
            total[name] += weight.double()
        if _steps(checkpoint, path) > steps:
            newest, steps = checkpoint, _steps(checkpoint, path)
    mean = {name: (w / len(checkpoints)).to(first["state_dict"][name].dtype) for name, w in total.items()}
    save_checkpoint({**without_training(newest), "state_dict": mean}, output)
    print(f"wrote {output}, the average of {len(checkpoints)} checkpoints")


def _steps(checkpoint: dict[str, Any], path: str) -> int:
    steps = checkpoint.get("global_step")
    if not isinstance(steps, int):
        raise InputError(f"checkpoint {path} does not say after how many steps it was written")
    return steps
