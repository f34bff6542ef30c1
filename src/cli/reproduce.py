"""reproduce: start a run again from its record, and say what differs."""

import json
from pathlib import Path

from src.cli.parser import VerbParser
from src.errors import InputError


def parser() -> VerbParser:
    """The options of `reproduce`; what it does not know goes to `fit`."""
    options = VerbParser(
        prog="python -m src reproduce",
        description="Start a run again from its record, and say what differs. Further options are those of fit.",
    )
    options.add_argument("run", metavar="RUN", type=Path, help="the folder of a run: logs/EXPERIMENT/version_N")
    return options


def main(arguments: list[str]) -> None:
    """Train again, in a folder of its own.

    Raises:
        InputError: the folder is not that of a run.
    """
    options, rest = parser().parse_known_args(arguments[1:])
    config, record = options.run / "config.yaml", options.run / "manifest.json"
    for path in (config, record):
        if not path.is_file():
            raise InputError(f"{options.run} is no run that can be reproduced: it has no {path.name}")
    try:
        recorded = json.loads(record.read_text(encoding="utf-8"))
        assert isinstance(recorded, dict)
    except (ValueError, AssertionError) as error:
        raise InputError(f"{record} is damaged: {error}") from error
    from src.cli import training

    training.main(["fit", "--config", str(config), *rest], recorded=recorded)
