"""What a run changes for the whole process is as before."""

import pytest
import torch


@pytest.fixture(autouse=True)
def exact_products():
    """Matrix products of float32 in float32, whatever a run before has set."""
    torch.set_float32_matmul_precision("highest")
