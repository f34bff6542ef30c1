"""What `fit` would say of a configuration before it trains, for the runs of a sweep."""

import tempfile
from pathlib import Path
from typing import Any

import yaml

from src.cli.messages import quieten
from src.cli.training import TrainingCLI
from src.errors import InputError
from src.hardware import native_precision


class CheckingCLI(TrainingCLI):
    """Everything up to the trainer."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        self.check()

    def _run_subcommand(self, subcommand: str) -> None:
        """Do nothing: that would train."""


def check_fit(config: dict[str, Any]) -> dict[str, Any]:
    """Prepare the data and make the model of a configuration, and refuse what `fit` would refuse.

    Returns:
        The settings that the hardware decides, by their dotted keys.
    """
    quieten()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        try:
            trainer = CheckingCLI("fit", ["fit", "--config", str(path)]).config.fit.trainer
        except InputError as error:
            raise InputError(str(error).replace(f" in {path}", "")) from error
    return {} if trainer.precision else {"trainer.precision": native_precision(trainer.accelerator)}
