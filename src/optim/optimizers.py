"""Optimizers that torch has not under a name of their own. `docs/optimizers.md` has these and torch's."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer
from torch.optim import Muon as MatrixMuon

from src.errors import InputError

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]


class Momentum(SGD):
    """Gradient descent with a heavy ball (Polyak 1964): ``v = momentum · v + g``, ``w = w - lr · v``.

    Args:
        lr: learning rate.
        momentum: share of the velocity that stays at each step.
        weight_decay: added to the gradient as ``weight_decay · w``.
    """

    def __init__(self, params: Parameters, lr: float = 1e-2, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay)


class Nesterov(SGD):
    """Momentum that looks ahead (Nesterov 1983; Sutskever et al. 2013): ``w = w - lr · (g + momentum · v)``.

    Args:
        lr: learning rate.
        momentum: share of the velocity that stays at each step.
        weight_decay: added to the gradient as ``weight_decay · w``.
    """

    def __init__(self, params: Parameters, lr: float = 1e-2, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
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
    """Steps of one size, in the direction of the sign of a momentum (Chen et al. 2023, algorithm 2).

    ``w = w - lr · (sign(b1 · m + (1 - b1) · g) + weight_decay · w)``, then ``m = b2 · m + (1 - b2) · g``. The paper
    advises a learning rate 3 to 10 times smaller than AdamW's and a weight decay as many times larger (section 5).

    Args:
        lr: learning rate.
        betas: share of the momentum in a step, and what stays of it after the step.
        weight_decay: decoupled, as AdamW's.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise InputError(
                f"Lion: lr {lr}, betas {betas} or weight_decay {weight_decay} cannot be: rates are at least 0, betas "
                "less than 1"
            )
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
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "hidden": False})
        hidden, others = ([group for group in self.param_groups if group["hidden"] is kind] for kind in (True, False))
        self._parts: list[Optimizer] = []
        # each adds the settings of its own to the groups, which it shares with this one
        if hidden:
            self._parts.append(MatrixMuon(hidden, lr, weight_decay, momentum=momentum, adjust_lr_fn="match_rms_adamw"))
        if others:
            self._parts.append(AdamW(others, lr, betas, weight_decay=weight_decay))

    def _update(self) -> None:
        for part in self._parts:
            muon = isinstance(part, MatrixMuon)
            # not once and for all: a checkpoint that is loaded puts others in their place
            part.param_groups = [group for group in self.param_groups if group["hidden"] is muon]
            part.state = self.state
            part.step()
