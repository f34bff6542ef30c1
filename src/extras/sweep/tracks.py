"""Tracks: what data, budget, evaluation and target are frozen, entries that change anything else, and their records."""

import hashlib
import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scipy.stats import ttest_ind, ttest_rel

from src.atomic import write_text
from src.errors import InputError
from src.extras.sweep.configuration import check_fields, layered, read_yaml, with_settings
from src.extras.sweep.definition import Sweep
from src.extras.sweep.results import RunResult, shown

LEVEL = 0.01  # of the test by which an entry beats the record


@dataclass(frozen=True)
class Track:
    """A track.

    Args:
        title: what is to be reached, in a line.
        base: the configuration files that entries change; with ``set`` they are the entry ``baseline``.
        frozen: dotted keys that no entry changes, each with all that is below it.
        set: dotted keys with values, over the files.
        free: keys below frozen ones that may be changed after all.
        seeds: of every entry.
        metric, mode, target, judged_by, max_tokens: as of a sweep.
        files: paths of the data that are not installed, with the SHA-256 of each.
    """

    name: str
    title: str
    base: list[str]
    frozen: list[str]
    metric: str
    set: dict[str, Any] = field(default_factory=dict)
    free: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    mode: str = "min"
    target: float | None = None
    judged_by: str = "metric"
    max_tokens: int | None = None
    files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sweep("baseline")  # which refuses what cannot be

    def sweep(self, entry: str) -> Sweep:
        """Make the sweep of an entry, whose one cell has the entry's name."""
        judged = {
            name: getattr(self, name) for name in ("metric", "mode", "target", "judged_by", "max_tokens", "seeds")
        }
        return Sweep(parameters={"experiment": [entry]}, base=self.base, **judged)

    def baseline(self) -> dict[str, Any]:
        """Make the configuration that entries change."""
        return with_settings(layered([Path(path) for path in self.base]), self.set)

    def is_frozen(self, key: str) -> bool:
        """Whether a dotted key may not be changed."""
        return _is_below(key, self.frozen) and not _is_below(key, self.free)

    def entry(self, files: Sequence[Path], settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
        """Lay an entry's files and settings over the baseline; refuse a change of what is frozen.

        Returns:
            The configuration, and what it changes: dotted keys, each with the value before and after.
        """
        before = self.baseline()
        after = with_settings(layered(files, before), settings)
        changes = _changes(_flat(before), _flat(after))
        for key, (old, new) in changes.items():
            if self.is_frozen(key):
                raise InputError(f"{key} is frozen by the track {self.name}: it is {old} and the entry has {new}")
        return after, changes

    def check_files(self) -> None:
        """Refuse data that are not those of the track."""
        for name, expected in self.files.items():
            path = Path(name)
            if not path.is_file():
                raise InputError(
                    f"the track {self.name} trains on {path}, which is not there: its file says what it is"
                )
            if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
                raise InputError(f"{path} is not the file of the track {self.name}: its SHA-256 is not {expected}")


def read_track(path: Path) -> Track:
    """Read the file of a track, which is named after it."""
    content = read_yaml(path)
    check_fields(content, Track, str(path), without=("name",))
    missing = [name for name in ("title", "base", "frozen", "metric") if name not in content]
    if missing:
        raise InputError(f"{path} has no {missing[0]}, and is no track")
    content["base"] = [content["base"]] if isinstance(content["base"], str) else content["base"]
    return Track(name=path.stem, **content)


def _is_below(key: str, parents: Sequence[str]) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def _flat(node: Any, key: str = "") -> dict[str, Any]:
    """Map the dotted keys of a configuration, which leave out ``init_args``, to its values."""
    if not isinstance(node, dict) or not node:
        return {key: node}
    flat: dict[str, Any] = {}
    for name, value in node.items():
        flat |= _flat(value, key if name == "init_args" else f"{key}.{name}" if key else str(name))
    return flat


def _changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, list[Any]]:
    keys = dict.fromkeys([*before, *after])
    return {key: [before.get(key), after.get(key)] for key in keys if before.get(key) != after.get(key)}


@dataclass(frozen=True)
class Record:
    """What an entry has reached, as its file in the repository says.

    Args:
        changes: what it changes of the baseline: dotted keys, each with the value before and after.
        runs: seed, value (None where the target is not reached), steps, tokens and seconds of each.
    """

    track: str
    entry: str
    date: str
    commit: str | None
    judged: str
    changes: dict[str, list[Any]]
    runs: list[dict[str, Any]]
    made_with: dict[str, Any]

    @property
    def values(self) -> dict[int, float]:
        """What it is judged by, of the seeds that have it."""
        return {run["seed"]: run["value"] for run in self.runs if run["value"] is not None}

    @property
    def is_complete(self) -> bool:
        """Whether every seed reaches the target."""
        return len(self.values) == len(self.runs)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values.values())

    def result(self) -> str:
        """Write the mean and the standard deviation over seeds."""
        if not self.is_complete:
            return f"not reached by {len(self.runs) - len(self.values)} of {len(self.runs)} seeds"
        deviation = f" ± {shown(statistics.stdev(self.values.values()))}" if len(self.runs) > 1 else ""
        return shown(self.mean) + deviation


def record_path(records: Path, track: str, entry: str) -> Path:
    """Return the file of an entry's record."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", entry):
        raise InputError(f"{entry!r} is no name of an entry: letters, digits, '-', '_' and '.' make one")
    return records / track / f"{entry}.json"


def read_records(records: Path, track: str) -> list[Record]:
    """Read the records of a track, the oldest first."""
    found = []
    for path in sorted((records / track).glob("*.json")):
        try:
            found.append(Record(**json.loads(path.read_text(encoding="utf-8"))))
        except (TypeError, ValueError) as error:
            raise InputError(f"{path} is no record of a track: {error}") from error
    return sorted(found, key=lambda record: (record.date, record.entry != "baseline", record.entry))


def write_record(record: Record, records: Path) -> Path:
    """Write the record of an entry."""
    path = record_path(records, record.track, record.entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(asdict(record), indent=1, ensure_ascii=False) + "\n")
    return path


def runs_of_record(runs: Sequence[RunResult]) -> list[dict[str, Any]]:
    """Take of an entry's runs what its record keeps; refuse an entry of which a run has failed."""
    for run in runs:
        if run.state not in ("complete", "unreached"):
            reason = run.record.get("reason", "")
            raise InputError(f"seed {run.seed} of the entry {run.label} is {run.state}: {reason}; it has no record")
    return [
        {
            "seed": run.seed,
            "value": run.value,
            "last": run.record["curve"][-1][1],
            **{name: run.record[name] for name in ("steps", "tokens", "seconds")},
        }
        for run in sorted(runs, key=lambda run: run.seed)
    ]


def beats(entry: Record, record: Record, mode: str) -> tuple[float, bool]:
    """Test whether an entry is better than a record, one-sided.

    Returns:
        The p-value, and whether the test is paired by seed: where both have the same seeds. Else it is Welch's.
    """
    sign = 1 if mode == "min" else -1
    ours, theirs = entry.values, record.values
    is_paired = ours.keys() == theirs.keys()
    a, b = ([sign * values[seed] for seed in sorted(values)] for values in (ours, theirs))
    if min(len(a), len(b)) < 2:
        return 1.0, is_paired
    spread = (
        [x - y for x, y in zip(a, b, strict=True)] if is_paired else [*(x - a[0] for x in a), *(y - b[0] for y in b)]
    )
    if len(set(spread)) == 1:  # no seed differs from the others: there is nothing to estimate
        return (0.0 if statistics.fmean(a) < statistics.fmean(b) else 1.0), is_paired
    test = ttest_rel(a, b, alternative="less") if is_paired else ttest_ind(a, b, equal_var=False, alternative="less")
    return float(test.pvalue), is_paired


@dataclass(frozen=True)
class Standing:
    """An entry beside the record that there was when it came."""

    record: Record
    against: Record | None = None
    p: float | None = None
    is_paired: bool = False

    @property
    def is_record(self) -> bool:
        """Whether it was a record when it came."""
        return self.record.is_complete and (self.against is None or (self.p is not None and self.p < LEVEL))

    def sentence(self, track: Track) -> str:
        """Say whether it beats the record."""
        name = f"{track.name}: {self.record.entry} has {self.record.judged} {self.record.result()}"
        if self.against is None:
            return f"{name}; it is the {'first record' if self.is_record else 'first entry, and no record'}"
        told = f"{name}; the record is {self.against.entry}, {self.against.result()}"
        if self.p is None:
            return f"{told}: no record"
        how = "paired by seed" if self.is_paired else "Welch's test, as the seeds differ"
        outcome = "a new record" if self.is_record else "no record"
        return f"{told}: {outcome}, p = {self.p:.2g} ({how}; below {LEVEL} is one)"


def standings(records: Sequence[Record], mode: str) -> list[Standing]:
    """Compare each entry with the record that there was before it, the oldest first."""
    found: list[Standing] = []
    holder: Record | None = None
    for record in records:
        if holder is not None and record.is_complete:
            standing = Standing(record, holder, *beats(record, holder, mode))
        else:
            standing = Standing(record, holder)
        found.append(standing)
        holder = record if standing.is_record else holder
    return found


def leaderboard(track: Track, records: Sequence[Record]) -> str:
    """Write the table of a track in Markdown, the best first; the record is the last that beat the one before it."""
    if not records:
        return f"## {track.name}\n\n{track.title}\n\nNo entry yet."
    found = standings(records, track.mode if track.judged_by == "metric" else "min")
    holder = next((standing.record for standing in reversed(found) if standing.is_record), None)
    sign = 1 if track.sweep("baseline").judged_mode == "min" else -1
    found.sort(key=lambda standing: (not standing.record.is_complete, _order(standing.record, sign)))
    lines = [
        f"| entry | {records[0].judged} | seeds | p against the record then | tokens | seconds a seed | machine | date "
        "| what it changes |",
        "|" + " --- |" * 9,
    ]
    for standing in found:
        record = standing.record
        means = [statistics.fmean(run[name] for run in record.runs) for name in ("tokens", "seconds")]
        changes = ", ".join(f"`{key}` {_short(new)}" for key, (_, new) in record.changes.items()) or "nothing"
        columns = [
            f"**{record.entry}**, the record" if record is holder else record.entry,
            record.result(),
            str(len(record.runs)),
            "" if standing.p is None else f"{standing.p:.2g}",
            *(f"{mean:,.0f}" for mean in means),
            str(record.made_with.get("machine", "")),
            record.date[:10],
            changes,
        ]
        lines.append("| " + " | ".join(column.replace("|", "\\|") for column in columns) + " |")
    return f"## {track.name}\n\n{track.title}\n\n" + "\n".join(lines)


def _order(record: Record, sign: int) -> float:
    return sign * record.mean if record.is_complete else -len(record.values)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"
