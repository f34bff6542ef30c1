"""Run a suite of standard evaluations while a network trains."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng

from src.callbacks.tensorboard import tensorboards
from src.checkpoint import save_checkpoint
from src.cli.verb import call
from src.distributed import unsharded_model
from src.errors import InputError
from src.extras.evaluation.cli import Asked, asked, plan, run
from src.extras.evaluation.results import log_scores, tag
from src.tasks import Task


class Evaluate(L.Callback):
    """Run a suite at given steps, on the first process, while the others wait.

    Scores go to TensorBoard and to ``evaluation/step_N/SUITE`` in the run's folder, and may be monitored: by
    ``ModelCheckpoint``, or as the metric of a sweep. The suite is given the weights that are trained, as a checkpoint
    that is deleted afterwards; the run's own random numbers stay as they are.

    Args:
        command: the suite and its options as on the command line: ``--suite perplexity --input text.txt``.
        steps: the steps, or a number: after every so many; only after the last, ``trainer.max_steps``, if None.
    """

    def __init__(self, command: str, steps: int | list[int] | None = None) -> None:
        super().__init__()
        if steps is not None and (not steps or min([steps] if isinstance(steps, int) else steps) < 1):
            raise InputError(f"Evaluate: steps is {steps}: give a number from 1 on, or a list of such")
        self.command, self.steps = command, steps
        self._last = 0  # step that was evaluated: with accumulation several batches have the same one

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse now what could not be evaluated later."""
        self._last = trainer.global_step
        if self.steps is None and trainer.max_steps < 1:
            raise InputError("Evaluate: without steps it needs trainer.max_steps, to know the last")
        self._on_first(trainer, pl_module, plan)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        steps = trainer.max_steps if self.steps is None else self.steps
        is_due = step % steps == 0 if isinstance(steps, int) else step in steps
        if step == self._last or not is_due:
            return
        self._last = step
        logged: dict[str, float] = {}

        def evaluate(what: Asked) -> None:
            scores = run(what, plan(what), Path(what.checkpoint).with_suffix("") / what.suite.replace("/", "_"))
            logged.update({tag(what.suite, score): score.value for score in scores})
            for writer in tensorboards(trainer):
                log_scores(writer, what.suite, scores, step)

        self._on_first(trainer, pl_module, evaluate)
        logged = trainer.strategy.broadcast(logged)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in logged.items()})

    def _on_first(self, trainer: L.Trainer, task: L.LightningModule, action: Callable[[Asked], Any]) -> None:
        """Do something with the network's checkpoint on the first process; what it refuses, all refuse."""
        assert isinstance(task, Task)
        model = unsharded_model(task)  # by every rank
        refused: str | None = None
        if trainer.is_global_zero and model is not None:
            path = Path(trainer.default_root_dir) / "evaluation" / f"step_{trainer.global_step:06d}.ckpt"
            path.parent.mkdir(parents=True, exist_ok=True)
            weights = {f"model.{name}": weight for name, weight in model.state_dict().items()}
            content: dict[str, Any] = {"state_dict": weights, "global_step": trainer.global_step}
            task.on_save_checkpoint(content)
            try:
                with isolate_rng():
                    save_checkpoint(content, path)
                    words = ["evaluate", "--checkpoint", str(path), *shlex.split(self.command)]
                    action(call("Evaluate", asked, words))
            except InputError as error:
                refused = f"Evaluate: {error}"
            finally:
                path.unlink(missing_ok=True)
        refused = trainer.strategy.broadcast(refused)
        if refused:
            raise InputError(refused)
