"""Prepare the data of a configuration before devices are taken to train on them."""

from typing import Any

from lightning.pytorch.cli import instantiate_class

from src.cli.training import TrainingCLI


class PreparingCLI(TrainingCLI):
    """The data of a configuration alone: no network and no trainer are made."""

    def instantiate_classes(self) -> None:
        settings = self.config.fit.data
        init: dict[str, Any] = {"class_path": settings.class_path, "init_args": settings.init_args.as_dict()}
        data = instantiate_class((), init)
        data.prepare_data()
        data.setup("fit")  # refuses what is too short to train on
        for split, counts in data.summary().items():
            print(f"{split}: {', '.join(f'{n:,} {what}' for what, n in counts.items())}")
        print(f"prepared in {data.folder}: fit begins with that")

    def _run_subcommand(self, subcommand: str) -> None:
        """Do nothing: that would train."""
