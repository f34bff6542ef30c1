"""What DeepSpeed may unpickle."""

from pathlib import Path

import pytest
import torch

from src.distributed.saving import plain_deepspeed
from src.errors import InputError

scaler = pytest.importorskip("deepspeed.runtime.fp16.loss_scaler", reason="needs the package deepspeed")


class Evil:
    """A pickle that would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_its_own_objects_are_read_and_code_is_not_run(tmp_path):
    """It asks for everything, as `weights_only=False` does."""
    torch.save({"loss_scaler": scaler.LossScaler(2.0), "weights": torch.ones(2)}, tmp_path / "good.pt")
    torch.save({"loss_scaler": Evil(tmp_path / "ran")}, tmp_path / "evil.pt")
    with plain_deepspeed():
        held = torch.load(tmp_path / "good.pt", weights_only=False)
    assert held["loss_scaler"].cur_scale == 2.0
    with pytest.raises(InputError, match="more than tensors"), plain_deepspeed():
        torch.load(tmp_path / "evil.pt", weights_only=False)
    assert not (tmp_path / "ran").exists()
