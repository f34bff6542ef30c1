"""Which parameters an optimizer decays."""

from typing import Any

from torch import nn


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """The trainable parameters in two groups: with the optimizer's weight decay, and without any.

    Matrices of linear layers are decayed; biases, norms and embeddings are not (Loshchilov and Hutter 2017; the
    original BERT and GPT-2 code). An output layer tied to an embedding is that embedding.
    """
    undecayed = {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if not isinstance(module, nn.Linear) or name == "bias"
    }
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if id(p) not in undecayed]},
        {"params": [p for p in trainable if id(p) in undecayed], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
