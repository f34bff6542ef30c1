"""Learning-rate schedules: the factor of the optimizer's learning rate at each optimizer step."""

import math
from abc import ABC, abstractmethod

from src.arguments import arguments_of
from src.errors import InputError


class Schedule(ABC):
    """A linear warm-up from 0 to 1 over ``warmup_steps``, then :meth:`after_warmup`.

    All steps are optimizer steps, not batches. The first update is made with the factor of step 0, so warm-up counts
    from 1: ``(step + 1) / warmup_steps``.

    Args:
        warmup_steps: length of the warm-up; 0 for none.
    """

    needs_total_steps = False  # whether it depends on the length of the run

    def __init__(self, warmup_steps: int = 0) -> None:
        self.arguments = arguments_of(self)
        if warmup_steps < 0:
            raise InputError(f"warmup_steps is {warmup_steps}: it cannot be negative")
        self.warmup_steps = warmup_steps

    def factor(self, step: int, total_steps: int) -> float:
        """The factor of the peak learning rate for update number ``step`` (from 0) of ``total_steps``."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return self.after_warmup(step, total_steps)

    @abstractmethod
    def after_warmup(self, step: int, total_steps: int) -> float:
        """The factor once the warm-up is over: ``step >= warmup_steps``."""

    def _progress(self, step: int, total_steps: int) -> float:
        """From 0 at the end of the warm-up to 1 at the last step and after it."""
        return min(1.0, (step - self.warmup_steps) / max(1, total_steps - 1 - self.warmup_steps))


class Constant(Schedule):
    """The peak rate to the end."""

    def after_warmup(self, step: int, total_steps: int) -> float:
        return 1.0


class _Decay(Schedule):
    """Down to ``final_factor`` at the last step.

    Args:
        warmup_steps: length of the warm-up; 0 for none.
        final_factor: fraction of the peak rate at the end.
    """

    needs_total_steps = True

    def __init__(self, warmup_steps: int = 0, final_factor: float = 0.0) -> None:
        super().__init__(warmup_steps)
        if not 0 <= final_factor <= 1:
            raise InputError(f"final_factor is {final_factor}: it must be between 0 and 1")
        self.final_factor = final_factor


class Linear(_Decay):
    """A straight line to ``final_factor`` (Devlin et al. 2018)."""

    def after_warmup(self, step: int, total_steps: int) -> float:
        return 1 - (1 - self.final_factor) * self._progress(step, total_steps)


class Cosine(_Decay):
    """Half a cosine wave to ``final_factor`` (Loshchilov and Hutter 2016; GPT-3, Brown et al. 2020)."""

    def after_warmup(self, step: int, total_steps: int) -> float:
        wave = (1 + math.cos(math.pi * self._progress(step, total_steps))) / 2
        return self.final_factor + (1 - self.final_factor) * wave


class WarmupStableDecay(_Decay):
    """The peak rate, then a straight line to ``final_factor`` over the last ``decay_steps`` (Hu et al. 2024, MiniCPM).

    Args:
        decay_steps: length of the decay.
        warmup_steps: length of the warm-up; 0 for none.
        final_factor: fraction of the peak rate at the end.
    """

    def __init__(self, decay_steps: int, warmup_steps: int = 0, final_factor: float = 0.0) -> None:
        super().__init__(warmup_steps, final_factor)
        if decay_steps < 1:
            raise InputError(f"decay_steps is {decay_steps}: it must be at least 1")
        self.decay_steps = decay_steps

    def after_warmup(self, step: int, total_steps: int) -> float:
        decayed = min(1.0, max(0.0, (step - (total_steps - 1 - self.decay_steps)) / self.decay_steps))
        return 1 - (1 - self.final_factor) * decayed


class InverseSquareRoot(Schedule):
    """Falls with the square root of the step after the warm-up (Noam; Vaswani et al. 2017, section 5.3).

    The paper's rate ``d_model^-0.5 · min(step^-0.5, step · warmup^-1.5)`` is this one with a learning rate of
    ``(d_model · warmup_steps)^-0.5``: 7.0e-4 for 512 and 4,000.
    """

    def after_warmup(self, step: int, total_steps: int) -> float:
        return math.sqrt(max(1, self.warmup_steps) / (step + 1))
