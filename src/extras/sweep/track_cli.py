"""track: run entries of a track, and write the leaderboard of all."""

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from src.cli import help_text, run_verb
from src.cli.messages import called_as
from src.cli.verb import Positive, Verbs
from src.errors import InputError

VERBS: Verbs = {
    "run": ("src.extras.sweep.track_cli:run", "train an entry with the track's seeds, and compare it with the record"),
    "table": ("src.extras.sweep.track_cli:table", "write the leaderboard of all tracks from their records"),
}
TRACKS = Path("configs/extras/sweep/tracks")
RECORDS = Path("docs/extras/sweep/records")
LEADERBOARD = Path("docs/extras/sweep/leaderboard.md")


def track(arguments: list[str]) -> None:
    """Run one of its verbs."""
    program = f"{called_as()} track"
    if not arguments[1:]:
        raise InputError(f"a verb of track is required: one of {', '.join(VERBS)} (see {program} --help)")
    if arguments[1] in ("-h", "--help"):
        print(help_text(VERBS, program))
    else:
        run_verb(arguments[1:], VERBS, program)


def run(
    track: Path,
    config: tuple[Path, ...] | None = None,
    set_: list[str] | None = None,
    name: str | None = None,
    study: Path | None = None,
    records: Path = RECORDS,
    jobs: Positive = 1,
    threads: Positive | None = None,
) -> None:
    """Train an entry with each of the track's seeds, write its record, and say whether it beats the one that there is.

    The same command goes on where it stopped.

    Args:
        track: the track: see configs/extras/sweep/tracks
        config: the entry: what it changes of the track's base; the base itself is the entry baseline
        set_: KEY=VALUE, a dotted key that the entry changes; repeat it
        name: of the entry (that of its last configuration, or baseline)
        study: the folder where the runs go (logs/tracks/TRACK-ENTRY)
        records: the folder of the records
        jobs: runs at a time
        threads: of each run; the CPUs divided by the jobs
    """
    from src.extras.sweep.cli import check, check_jobs, fit, settings_of
    from src.extras.sweep.results import runs_of
    from src.extras.sweep.scheduling import run_sweep
    from src.extras.sweep.study import find_study, open_storage
    from src.extras.sweep.tracks import (
        Record,
        read_records,
        read_track,
        record_path,
        runs_of_record,
        standings,
        write_record,
    )
    from src.hardware import cpu_name
    from src.manifest import git_state

    n_cpus = check_jobs(jobs)
    made = read_track(track)
    settings = settings_of(set_)
    changed_by = [*(config or ()), *settings]
    entry = name or (config[-1].stem if config else "baseline")
    if changed_by and entry == "baseline":
        raise InputError("baseline is the track's base as it is: give the entry another --name")
    path = record_path(records, made.name, entry)
    configuration, changes = made.entry(config or (), settings)
    others = [record for record in read_records(records, made.name) if record.entry != entry]
    before = [record for record in read_records(records, made.name) if record.entry == entry]
    if before and before[0].changes != changes:
        raise InputError(f"{path} is the record of another entry: give this one another --name")
    made.check_files()
    folder = study or Path("logs/tracks", f"{made.name}-{entry}")
    sweep = made.sweep(entry)
    run_sweep(sweep, folder, None, jobs, threads or max(1, n_cpus // jobs), fit=fit, check=check, config=configuration)
    found = find_study(open_storage(folder), folder.name)
    assert found is not None
    runs = runs_of(found, sweep)
    record = Record(
        track=made.name,
        entry=entry,
        date=before[0].date if before else datetime.now(UTC).isoformat(timespec="seconds"),
        commit=(git_state(Path(__file__).parent) or {}).get("commit"),
        judged=sweep.judged_name,
        changes=changes,
        runs=runs_of_record(runs),
        made_with={
            "machine": cpu_name(),
            **{what: runs[0].record.get(what) for what in ("threads", "precision", "n_parameters")},
            **{package: version(package) for package in ("torch", "lightning")},
        },
    )
    print(f"wrote {write_record(record, records)}")
    earlier = [other for other in others if other.date <= record.date]
    print(standings([*earlier, record], sweep.judged_mode)[-1].sentence(made))


def table(tracks: Path = TRACKS, records: Path = RECORDS, output: Path = LEADERBOARD) -> None:
    """Write the leaderboard of all tracks from the records of their entries.

    Args:
        tracks: the folder of the tracks
        records: the folder of the records
        output: the page to write
    """
    from src.atomic import write_text

    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, leaderboards(tracks, records))
    print(f"wrote {output}")


def leaderboards(tracks: Path, records: Path) -> str:
    """Make the page of all tracks."""
    from src.extras.sweep.tracks import leaderboard, read_records, read_track

    files = sorted(tracks.glob("*.yaml"))
    if not files:
        raise InputError(f"there is no track in {tracks}: name their folder by --tracks")
    parts = [leaderboard(read_track(path), read_records(records, path.stem)) for path in files]
    head = (
        "# Leaderboards\n\nWritten by `./run.sh track table` from the records beside this page; "
        "[tracks.md](tracks.md) says what a track is, and when an entry is the record."
    )
    return "\n\n".join([head, *parts]) + "\n"
