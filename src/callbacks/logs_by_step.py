"""What is logged, at which step: the x axis of every curve."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.trainer.connectors.logger_connector.logger_connector import _LoggerConnector


class LogsByStep(_LoggerConnector):
    """Log by the number of optimizer steps made, and each step once.

    Lightning's own count is one less, in training and in a validation within it, and loses another one at each resume.
    It also logs the last step of a run, whenever it is, with the figures of an earlier one.
    """

    _logged = 0  # the newest step

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if metrics and step is None and self.trainer.state.fn == "fit":
            metrics, step = {"epoch": self.trainer.current_epoch, **metrics}, self.trainer.global_step
        super().log_metrics(dict(metrics), step)

    def update_train_step_metrics(self) -> None:
        """Log the step at hand, if that is due and not done."""
        step, every = self.trainer.global_step, self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step != self._logged and step % every == 0 and self._first_loop_iter is not None:
            self._logged = step
            self.log_metrics(self.metrics["log"])
