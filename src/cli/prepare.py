"""Prepare the data of a configuration before devices are taken to train on them."""

from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, instantiate_class

from src.cli.training import TrainingCLI
from src.data.sharing import Part
from src.errors import InputError
from src.files import counted


class PreparingCLI(TrainingCLI):
    """The data of a configuration alone: no network and no trainer are made."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        part_help = "Prepare one of several parts, such as 2/8 the second of eight, each on a machine of its own."
        parser.add_argument("--part", type=str | None, default=None, help=part_help)

    def instantiate_classes(self) -> None:
        settings = self.config.fit.data
        init: dict[str, Any] = {"class_path": settings.class_path, "init_args": settings.init_args.as_dict()}
        data = instantiate_class((), init)
        if (part := self.config.fit.part) is not None:
            data.part = Part.parse(part)
            if not data.can_be_shared:
                raise InputError(f"--part is {part}: {type(data).__name__} is prepared by one machine alone")
        data.prepare_data()
        if data.part is not None:
            print(f"part {part} is prepared in {data.folder}: fit joins all parts when they are there")
            return
        data.setup("fit")  # refuses what is too short to train on
        for split, counts in data.summary().items():
            print(f"{split}: {', '.join(counted(n, what) for what, n in counts.items())}")
        print(f"prepared in {data.folder}: fit begins with that")

    def _run_subcommand(self, subcommand: str) -> None:
        """Do nothing: that would train."""
