"""What a run leaves beside checkpoints: its configuration, tokenizers and manifest, and what it logs."""

import csv
import io
import json
import math
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from src.atomic import write_text
from src.manifest import MANIFEST
from src.tasks import Task


class SaveConfig(SaveConfigCallback):
    """Save the resolved configuration and a manifest in the run's folder, and the configuration in each checkpoint.

    Args:
        record: the manifest.
        in_place: whether the folder is that of an interrupted run which goes on.
        modules: of the user's own, which a checkpoint names, since its network may be built of what they register.
        parser: of the configuration.
        config: what it parsed.
    """

    def __init__(
        self, parser: LightningArgumentParser, config: Any, record: dict[str, Any], in_place: bool, modules: list[str]
    ) -> None:
        super().__init__(parser, config, overwrite=in_place)
        self.record, self.in_place, self.modules = record, in_place, modules
        if in_place:  # the run is still the one that began without a checkpoint
            self.config = self.config.clone()
            self.config.ckpt_path = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"], checkpoint["modules"] = self._text, self.modules

    @cached_property
    def _text(self) -> str:
        return self.parser.dump(self.config, skip_unset=False)  # takes longer than to save a small network

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write the manifest, and the tokenizers, which another run can name."""
        assert isinstance(pl_module, Task)
        path = Path(trainer.default_root_dir) / MANIFEST
        record = self.record
        if self.in_place and path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            record["resumed"].append(self.record)
        write_text(path, json.dumps(record, indent=1))
        for name in ("tokenizer", "source_tokenizer"):
            if hasattr(pl_module.data, name):
                getattr(pl_module.data, name).save(str(Path(trainer.default_root_dir) / f"{name}.json"))


def loggers(run: Path, step: int = 0) -> list[Logger]:
    """Make the loggers of a run: TensorBoard, and a CSV file that a resumed run continues.

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
        if step and Path(self.metrics_file_path).is_file():
            self._rewrite_with_new_header([], before=step)

    def _check_log_dir_exists(self) -> None:
        """Do nothing: Lightning's removes the file."""

    def _rewrite_with_new_header(self, fieldnames: list[str], before: float = math.inf) -> None:
        path, text = Path(self.metrics_file_path), io.StringIO(newline="")
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            # a kill may have cut the last row in two
            rows = [row for row in reader if (row.get("step") or "").isdigit() and int(row["step"]) < before]
        self.metrics_keys = sorted({*fieldnames, *(reader.fieldnames or [])})
        writer = csv.DictWriter(text, self.metrics_keys)
        writer.writeheader()
        writer.writerows(rows)
        write_text(path, text.getvalue())
