"""Where a run's figures go: TensorBoard, and a CSV file that a resumed run goes on with."""

import csv
import io
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from src.atomic import write_text


def loggers(run: Path, step: int = 0) -> list[Logger]:
    """The loggers of a run.

    Args:
        run: its folder.
        step: optimizer steps of the checkpoint that it goes on from: what was logged after it is left out.
    """
    root, experiment, version = str(run.parent.parent), run.parent.name, run.name
    board: dict[str, Any] = {"default_hp_metric": False} | ({"purge_step": step} if step else {})
    return [TensorBoardLogger(root, experiment, version, **board), ContinuedCSV(step, root, experiment, version)]


class ContinuedCSV(CSVLogger):
    """``metrics.csv``; where Lightning's own logger would remove the file of an interrupted run, this goes on with it.

    Args:
        step: rows from here on are dropped from that file.
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
        file = Path(self.metrics_file_path)
        if step and file.is_file():
            with file.open(newline="", encoding="utf-8") as rows:
                reader = csv.DictReader(rows)
                # a kill may have cut the last row in two
                kept = [row for row in reader if (row.get("step") or "").isdigit() and int(row["step"]) < step]
            self.metrics_keys = sorted(reader.fieldnames or [])
            self._write(self.metrics_keys, kept)

    def _check_log_dir_exists(self) -> None:
        """Nothing: Lightning's removes the file."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with Path(self.metrics_file_path).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self._write(fieldnames, rows)

    def _write(self, names: list[str], rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(rows)
        write_text(Path(self.metrics_file_path), text.getvalue())
