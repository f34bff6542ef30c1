"""report: tables and plots of a sweep, from what its study holds."""

from pathlib import Path

from src.cli.parser import VerbParser
from src.errors import InputError


def parser() -> VerbParser:
    """The options of `report`."""
    options = VerbParser(prog="python -m src report", description=__doc__)
    options.add_argument("--study", required=True, metavar="FOLDER", help="of a sweep")
    options.add_argument("--storage", metavar="URL", help="the database, where `sweep` was given one")
    return options


def main(arguments: list[str]) -> None:
    """Write the report of a study into its folder.

    Raises:
        InputError: there is no such study.
    """
    options = parser().parse_args(arguments[1:])
    from src.extras.sweep.study import default_storage, find_study, open_storage
    from src.extras.sweep.tables import write_report

    folder = Path(options.study)
    if options.storage is None and not (folder / "study.db").is_file():
        raise InputError(f"there is no study in {folder}: run a sweep, or name its database by --storage")
    folder.mkdir(parents=True, exist_ok=True)
    study = find_study(open_storage(options.storage or default_storage(folder), folder), folder.name)
    if study is None:
        raise InputError(f"the database has no study {folder.name!r}")
    print(f"wrote {write_report(study, folder)}")
