"""The loggers of a run: TensorBoard and a CSV file in its folder, and beside them those that a configuration names."""

import csv
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from src.atomic import write_text
from src.errors import InputError
from src.manifest import MANIFEST

SERVICES = (WandbLogger, MLFlowLogger)  # which have an id for each run, by which it can go on


def as_list(value: Any) -> list[Any]:
    """Make a list of a setting that may be None, one thing or a list of them."""
    return value if isinstance(value, list) else [] if value is None else [value]


def own_loggers(run: Path, step: int = 0) -> list[Logger]:
    """Make the loggers that every run has: TensorBoard, and a CSV file that a resumed run continues.

    Args:
        run: its folder.
        step: optimizer steps of the checkpoint that it goes on from: what was logged after it is left out.
    """
    root, experiment, version = str(run.parent.parent), run.parent.name, run.name
    board: dict[str, Any] = {"default_hp_metric": False} | ({"purge_step": step + 1} if step else {})
    return [TensorBoardLogger(root, experiment, version, **board), ContinuedCSV(step, root, experiment, version)]


def complete(logger: Namespace) -> None:
    """Let MLflow keep its runs where it does by itself: it no longer opens the folder that is Lightning's default."""
    arguments = logger.get("init_args", Namespace())
    if logger.class_path.endswith(".MLFlowLogger") and (arguments.tracking_uri, arguments.save_dir) == (
        None,
        "./mlruns",
    ):
        arguments.tracking_uri = "sqlite:///mlflow.db"


def open_loggers(named: Iterable[Logger], config: dict[str, Any], interrupted: Path | None) -> None:
    """Open the loggers that a configuration names, each with that configuration as its hyperparameters.

    Args:
        named: the loggers.
        config: the run's complete configuration.
        interrupted: the folder of the run that goes on, if it does; W&B and MLflow then go on with theirs.
    """
    path = interrupted / MANIFEST if interrupted else None
    recorded = json.loads(path.read_text(encoding="utf-8")).get("service_runs", []) if path and path.is_file() else []
    for logger in named:
        kind = type(logger).__name__
        try:
            if recorded and recorded[0][0] == kind:
                _go_on(logger, recorded.pop(0)[1])
            else:
                logger.log_hyperparams(config)
        except Exception as error:  # whatever a service's client raises: no server, no key, no such project
            raise InputError(f"trainer.logger {kind}: {str(error) or type(error).__name__}") from error


def _go_on(logger: Logger, run_id: str) -> None:
    """Open a run of a service again; it has its hyperparameters, of which MLflow lets none change."""
    if isinstance(logger, WandbLogger):
        logger._id = logger._wandb_init["id"] = run_id
        _ = logger.experiment
    elif isinstance(logger, MLFlowLogger):
        logger._run_id = run_id
        _ = logger.experiment


def service_runs(loggers: Iterable[Logger]) -> list[list[str]]:
    """List the kind and the run's id of each logger that can go on with a run."""
    return [[type(logger).__name__, str(logger.version)] for logger in loggers if isinstance(logger, SERVICES)]


class ContinuedCSV(CSVLogger):
    """``metrics.csv``; where Lightning's own logger would remove the file of an interrupted run, this goes on with it.

    Args:
        step: rows after it are dropped from that file.
        arguments: Lightning's.
    """

    def __init__(self, step: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._step = step

    @property
    def experiment(self) -> Any:
        if rank_zero_only.rank == 0 and self._experiment is None:  # type: ignore[attr-defined]
            self._experiment = _Writer(self.log_dir, self._step)
        return super().experiment


class _Writer(ExperimentWriter):
    def __init__(self, log_dir: str, step: int) -> None:
        super().__init__(log_dir)
        if step and Path(self.metrics_file_path).is_file():
            self._rewrite_with_new_header([], last=step)

    def _check_log_dir_exists(self) -> None:
        """Do nothing: Lightning's removes the file."""

    def _rewrite_with_new_header(self, fieldnames: list[str], last: float = math.inf) -> None:
        path, text = Path(self.metrics_file_path), io.StringIO(newline="")
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            # a kill may have cut the last row in two
            rows = [row for row in reader if (row.get("step") or "").isdigit() and int(row["step"]) <= last]
        self.metrics_keys = sorted({*fieldnames, *(reader.fieldnames or [])})
        writer = csv.DictWriter(text, self.metrics_keys)
        writer.writeheader()
        writer.writerows(rows)
        write_text(path, text.getvalue())
