"""When a layer may go its own way on a processor, where torch's is slower."""

import torch
from torch import Tensor


def eager_on_processor(x: Tensor) -> bool:
    """Whether ``x`` is a plain tensor in a processor's memory, in code that is run as it stands.

    Not a subclass, which may stand for a part of a tensor; and what is compiled is made fast by the compiler.
    """
    return x.device.type == "cpu" and type(x) is Tensor and not torch.compiler.is_compiling()
