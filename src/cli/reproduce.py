"""reproduce: start a run again from its record, and say what differs."""

import json
from pathlib import Path

from src.errors import InputError


def reproduce(run: Path, /, *options: str) -> None:
    """Start a run again from its record, in a folder of its own, and say what differs. Options of fit may follow.

    Args:
        run: the folder of a run: logs/EXPERIMENT/version_N
    """
    config, record = run / "config.yaml", run / "manifest.json"
    for path in (config, record):
        if not path.is_file():
            raise InputError(f"{run} is no run that can be reproduced: it has no {path.name}")
    try:
        recorded = json.loads(record.read_text(encoding="utf-8"))
        assert isinstance(recorded, dict)
    except (ValueError, AssertionError) as error:
        raise InputError(f"{record} is damaged: {error}") from error
    from src.cli.training import main

    main(["fit", "--config", str(config), *options], recorded=recorded)
