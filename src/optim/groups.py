"""Which parameters an optimizer decays, and which of them are hidden matrices."""

from typing import Any

from torch import nn


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """The trainable parameters in up to three groups.

    Matrices of linear layers are decayed; biases, norms and embeddings are not (Loshchilov and Hutter 2017; the
    original BERT and GPT-2 code). An output layer tied to an embedding is that embedding. The matrices in stacks of
    blocks are ``hidden``, which Muon asks for.
    """
    matrices = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed = {id(matrix) for matrix in matrices} - embeddings
    stacked = {id(p) for module in model.modules() if isinstance(module, nn.ModuleList) for p in module.parameters()}
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if id(p) in decayed & stacked], "hidden": True},
        {"params": [p for p in trainable if id(p) in decayed - stacked], "hidden": False},
        {"params": [p for p in trainable if id(p) not in decayed], "hidden": False, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
