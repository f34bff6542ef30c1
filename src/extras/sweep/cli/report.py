"""report: tables and plots of a sweep, from what its study holds."""

from pathlib import Path

from src.errors import InputError


def report(study: Path, storage: str | None = None) -> None:
    """Write the tables and plots of a study into its folder.

    Args:
        study: the folder of a sweep
        storage: the URL of the database, where `sweep` was given one
    """
    from src.extras.sweep.study import default_storage, find_study, open_storage
    from src.extras.sweep.tables import write_report

    if storage is None and not (study / "study.db").is_file():
        raise InputError(f"there is no study in {study}: run a sweep, or name its database by --storage")
    study.mkdir(parents=True, exist_ok=True)
    found = find_study(open_storage(storage or default_storage(study), study), study.name)
    if found is None:
        raise InputError(f"the database has no study {study.name!r}")
    print(f"wrote {write_report(found, study)}")
