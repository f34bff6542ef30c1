"""Parameter groups, and optimizers that torch does not have. `docs/optimizers.md` has these and torch's."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import ASGD, SGD, Adadelta, Adafactor, AdamW, Optimizer, Rprop

from src.errors import InputError
from src.optim.orthogonalize import orthogonalize, orthogonalize_sharded

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]
LARGEST = 1e6  # of what multiplies a learning rate
# whose steps have entries of a size that is neither the learning rate's nor Muon's: SGD's is the gradient's
NOT_OF_MUP = (SGD, ASGD, Adadelta, Adafactor, Rprop, torch.optim.Muon)


@dataclass(frozen=True)
class GroupOptions:
    """What the kinds of parameters have of their own in the optimizer.

    Args:
        matrices_lr_scale: multiplies the learning rate of the matrices of linear layers in stacks of blocks.
        head_lr_scale: of other such matrices, as that of an output layer that is tied to no embedding.
        embeddings_lr_scale: of embeddings, among them an output layer that is tied to one.
        vectors_lr_scale: of biases and the weights of norms.
        embeddings_weight_decay: the weight decay of embeddings.
    """

    matrices_lr_scale: float = 1.0
    head_lr_scale: float = 1.0
    embeddings_lr_scale: float = 1.0
    vectors_lr_scale: float = 1.0
    embeddings_weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("lr_scale") and not 0 < value <= LARGEST:
                raise ValueError(
                    f"groups.{name} is {value}: it must be above 0 and at most {LARGEST:,.0f}; model.freeze is for "
                    "what is not to be trained"
                )
            if not 0 <= value <= LARGEST:
                raise ValueError(f"groups.{name} is {value}: it must be from 0 to {LARGEST:,.0f}")

    @property
    def embeddings_apart(self) -> bool:
        """Whether embeddings are a group of their own, and not of one with the vectors."""
        return self.embeddings_weight_decay > 0 or self.embeddings_lr_scale != self.vectors_lr_scale


def parameter_groups(model: nn.Module, options: GroupOptions = GroupOptions()) -> list[dict[str, Any]]:
    """The trainable parameters in up to three groups, or four where embeddings are apart.

    Matrices of linear layers are decayed; biases, norms and, unless ``options`` say how much, embeddings are not
    (Loshchilov and Hutter 2017; the original BERT and GPT-2 code). An output layer tied to an embedding is that
    embedding. The matrices in stacks of blocks are ``hidden``, which Muon asks for.

    What their learning rates are multiplied by is ``lr_scale``, and ``width_lr_scale`` by the width: by muP (Yang et
    al. 2022, table 8) that of the hidden ones alone depends on it, as ``matrix_lr_scale`` of the network says.
    """
    matrices = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    linear = {id(matrix) for matrix in matrices} - tables
    stacked = {id(p) for module in model.modules() if isinstance(module, nn.ModuleList) for p in module.parameters()}
    trainable = [p for p in model.parameters() if p.requires_grad]
    others = [p for p in trainable if id(p) not in linear]
    hidden = {
        "params": [p for p in trainable if id(p) in linear & stacked],
        "hidden": True,
        "lr_scale": options.matrices_lr_scale,
        "width_lr_scale": getattr(model, "matrix_lr_scale", 1.0),
    }
    head = {"params": [p for p in trainable if id(p) in linear - stacked], "lr_scale": options.head_lr_scale}
    vectors = {"params": others, "lr_scale": options.vectors_lr_scale, "weight_decay": 0.0}
    groups = [hidden, head, vectors]
    if options.embeddings_apart:
        vectors["params"] = [p for p in others if id(p) not in tables]
        embeddings = {"params": [p for p in others if id(p) in tables], "lr_scale": options.embeddings_lr_scale}
        groups.insert(2, {**embeddings, "weight_decay": options.embeddings_weight_decay})
    return [{"hidden": False, **group} for group in groups if group["params"]]


def scale_rates(optimizer: Optimizer) -> None:
    """Multiply the learning rate of each group by its ``lr_scale`` and ``width_lr_scale``.

    The latter is the rule of Adam, whose steps have entries of one size. Those of Muon have singular values of one
    size, which of a matrix with such entries grow as the square root of the width: so does what is left of its rule.
    An optimizer of the user's own gets that of Adam.
    """
    for group in optimizer.param_groups:
        width_scale = group.get("width_lr_scale", 1.0)
        if width_scale != 1 and isinstance(optimizer, NOT_OF_MUP):
            raise InputError(
                f"mup_width has no rule for {type(optimizer).__name__}, which scales its steps otherwise than Adam: "
                "choose AdamW, Lion or Muon, or set mup_width to null"
            )
        group["lr"] *= group["lr_scale"] * (width_scale**0.5 if isinstance(optimizer, Muon) else width_scale)


def _check_settings(kind: type, *, betas: tuple[float, ...] = (), **settings: float) -> None:
    for name, value in [*settings.items(), *(("betas", beta) for beta in betas)]:
        is_rate = name in ("lr", "weight_decay")
        if not 0 <= value < (math.inf if is_rate else 1):
            allowed = "finite" if is_rate else "less than 1"
            raise InputError(f"{kind.__name__}: {name} is {value}: it must be at least 0 and {allowed}")


class Momentum(SGD):
    """Gradient descent with a heavy ball (Polyak 1964): ``v = momentum · v + g``, ``w = w - lr · v``.

    Args:
        lr: learning rate.
        momentum: fraction of the velocity that is kept at each step.
        weight_decay: added to the gradient as ``weight_decay · w``.
    """

    def __init__(self, params: Parameters, lr: float = 1e-2, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        _check_settings(Momentum, lr=lr, momentum=momentum, weight_decay=weight_decay)
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay)


class Nesterov(SGD):
    """Momentum that looks ahead (Nesterov 1983; Sutskever et al. 2013): ``w = w - lr · (g + momentum · v)``.

    Args:
        lr: learning rate.
        momentum: fraction of the velocity that is kept at each step.
        weight_decay: added to the gradient as ``weight_decay · w``.
    """

    def __init__(self, params: Parameters, lr: float = 1e-2, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        _check_settings(Nesterov, lr=lr, momentum=momentum, weight_decay=weight_decay)
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=True)


class _Optimizer(Optimizer):
    """A step that may be given a closure, as those of torch's optimizers."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._update()
        return loss

    def _update(self) -> None:
        raise NotImplementedError


class Lion(_Optimizer):
    """Steps of one size, in the direction of the sign of the momentum (Chen et al. 2023, algorithm 2).

    ``w = w - lr · (sign(b1 · m + (1 - b1) · g) + weight_decay · w)``, then ``m = b2 · m + (1 - b2) · g``. The paper
    advises a learning rate 3 to 10 times smaller than AdamW's and a weight decay as many times larger (section 5).

    Args:
        lr: learning rate.
        betas: fraction of the momentum in a step, and the fraction of it that is kept after the step.
        weight_decay: decoupled, as AdamW's.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        _check_settings(Lion, lr=lr, betas=betas, weight_decay=weight_decay)
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def _update(self) -> None:
        for group in self.param_groups:
            lr, (beta1, beta2) = group["lr"], group["betas"]
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["exp_avg"] = torch.zeros_like(weight)
            gradients, momenta = [w.grad for w in weights], [self.state[w]["exp_avg"] for w in weights]
            directions = torch._foreach_lerp(gradients, momenta, beta1)
            torch._foreach_sign_(directions)
            torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
            torch._foreach_add_(weights, directions, alpha=-lr)
            torch._foreach_lerp_(momenta, gradients, 1 - beta2)


class Muon(_Optimizer):
    """Orthogonalised momentum for the matrices of the blocks, AdamW for all else.

    Muon (Jordan et al. 2024) is for hidden matrices alone: embeddings, output layers, norms and biases need another
    optimizer beside it. Its steps are scaled to the size of AdamW's (Liu et al. 2025, section 2.2), so that one
    learning rate and one weight decay serve both.

    Args:
        params: groups with ``hidden`` true are stepped by Muon, as :func:`parameter_groups` marks them.
        lr: learning rate, of the size that suits AdamW.
        momentum: of the matrices' gradients, by Nesterov's rule.
        weight_decay: decoupled.
        betas: of AdamW.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
    ) -> None:
        _check_settings(Muon, lr=lr, momentum=momentum, weight_decay=weight_decay, betas=betas)
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "hidden": False, "momentum": momentum})
        others = [group for group in self.param_groups if not group["hidden"]]
        # it adds its own settings to the groups, which it shares with this optimizer
        self._adamw = AdamW(others, lr, betas, weight_decay=weight_decay) if others else None

    def _update(self) -> None:
        if self._adamw is not None:
            # at each step, since loading a checkpoint replaces the groups and the state
            self._adamw.param_groups = [group for group in self.param_groups if not group["hidden"]]
            self._adamw.state = self.state
            self._adamw.step()
        sharded: list[tuple[Tensor, DTensor, dict[str, Any]]] = []
        for group in self.param_groups:
            for weight in group["params"]:
                if group["hidden"] and weight.grad is not None:
                    direction = self._direction(weight, weight.grad, group["momentum"])
                    if isinstance(direction, DTensor):
                        sharded.append((weight, direction, group))
                    else:
                        self._step_matrix(weight, orthogonalize(direction), group)
        found = orthogonalize_sharded([direction for _, direction, _ in sharded])
        for (weight, _, group), orthogonal in zip(sharded, found, strict=True):
            self._step_matrix(weight, orthogonal, group)

    def _direction(self, weight: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        return torch.lerp(gradient, state["momentum_buffer"].lerp_(gradient, 1 - momentum), momentum)

    def _step_matrix(self, weight: Tensor, direction: Tensor, group: dict[str, Any]) -> None:
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(direction.to(weight.dtype), alpha=-group["lr"] * 0.2 * math.sqrt(max(weight.shape)))
