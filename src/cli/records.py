"""What a run leaves beside checkpoints: its configuration, tokenizers and manifest."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from src.atomic import write_text
from src.cli.loggers import service_runs
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

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let the checkpoints have what the run was started with, and save it."""
        assert isinstance(pl_module, Task)
        pl_module.run_record = lambda: {"config": self._text, "modules": self.modules}
        super().setup(trainer, pl_module, stage)

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
        record["service_runs"] = service_runs(trainer.loggers)
        write_text(path, json.dumps(record, indent=1))
        for name in ("tokenizer", "source_tokenizer"):
            if hasattr(pl_module.data, name):
                getattr(pl_module.data, name).save(str(Path(trainer.default_root_dir) / f"{name}.json"))
