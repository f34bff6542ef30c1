"""Tracks: what entries may change, when one is the record, and an entry from its configuration to the leaderboard."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import scipy.stats
import yaml

import src.cli
from src.errors import InputError
from src.extras.sweep.track_cli import LEADERBOARD, RECORDS, TRACKS, leaderboards
from src.extras.sweep.tracks import Record, beats, leaderboard, read_track, standings

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / TRACKS).glob("*.yaml"))


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_tracks_here_freeze_data_and_evaluation_and_leave_the_rest(run, path, tmp_path):
    if path.stem == "glue" and "evaluate" not in src.cli.VERBS:
        pytest.skip("this project has no evaluate")
    track = read_track(path)
    for key in ("data.source", "data.seq_len", "data.class_path", "trainer.limit_val_batches", "model.pretrained"):
        with pytest.raises(InputError, match=rf"{key} is frozen by the track {path.stem}"):
            track.entry([], {key: 7})
    config, changes = track.entry([], {"model.optimizer.lr": 0.5, "data.num_workers": 3, "model.config.norm": "pre"})
    assert changes["model.optimizer.lr"][1] == 0.5
    assert len(track.seeds) >= 3
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    status, _, err = run("fit", "--config", tmp_path / "config.yaml", "--print_config")
    assert status == 0, err


def test_an_entry_of_files_is_laid_over_the_base(tmp_path):
    track = read_track(ROOT / TRACKS / "wikipedia.yaml")
    (tmp_path / "wide.yaml").write_text("model: {init_args: {config: {d_model: 192}}}")
    config, changes = track.entry([tmp_path / "wide.yaml"], {})
    assert changes == {"model.config.d_model": [128, 192]}
    assert config["model"]["init_args"]["config"]["n_layers"] == 4
    (tmp_path / "long.yaml").write_text("data: {init_args: {seq_len: 512}}")
    with pytest.raises(
        InputError, match=r"data\.seq_len is frozen by the track wikipedia: it is 256 and the entry has 512"
    ):
        track.entry([tmp_path / "wide.yaml", tmp_path / "long.yaml"], {})


def record(entry, values, date="2026-01-01", **changes):
    runs = [
        {"seed": seed, "value": value, "last": 1.0, "steps": 1, "tokens": 1000, "seconds": 2.0}
        for seed, value in values.items()
    ]
    return Record(
        "t", entry, date, None, "val/loss", {name: [None, value] for name, value in changes.items()}, runs, {}
    )


def of(*values, first=0):
    return dict(enumerate(values, first))


def test_the_test_is_scipys_paired_by_seed_where_it_can_be():
    old, new = (1.0, 1.1, 0.9, 1.05, 1.0), (0.99, 1.08, 0.88, 1.03, 0.99)
    p, is_paired = beats(record("new", of(*new)), record("old", of(*old)), "min")
    assert is_paired
    assert p == pytest.approx(scipy.stats.ttest_rel(new, old, alternative="less").pvalue)
    p, is_paired = beats(record("new", of(*new, first=5)), record("old", of(*old)), "min")
    assert not is_paired
    assert p == pytest.approx(scipy.stats.ttest_ind(new, old, equal_var=False, alternative="less").pvalue)
    # where the highest is the best
    p, _ = beats(record("new", of(*old)), record("old", of(*new)), "max")
    assert p == pytest.approx(scipy.stats.ttest_rel(old, new, alternative="greater").pvalue)
    assert beats(record("same", of(*old)), record("old", of(*old)), "min")[0] == 1.0


def test_the_record_is_held_until_one_beats_it_with_every_seed():
    base = record("baseline", of(1.0, 1.1, 0.9))
    lucky = record("lucky", of(0.9, 1.15, 0.85), "2026-01-02")  # lower, but not told apart
    better = record("better", of(0.95, 1.051, 0.849), "2026-01-03", lr=0.1)
    missing = record("missing", of(0.5, 0.6, None), "2026-01-04")
    found = standings([base, lucky, better, missing], "min")
    assert [standing.is_record for standing in found] == [True, False, True, False]
    assert [standing.against and standing.against.entry for standing in found] == [
        None,
        "baseline",
        "baseline",
        "better",
    ]
    track = read_track(ROOT / TRACKS / "wikipedia.yaml")
    assert "a new record, p = " in found[2].sentence(track)
    assert "not reached by 1 of 3 seeds; the record is better" in found[3].sentence(track)
    rows = leaderboard(track, [base, lucky, better, missing]).splitlines()[-4:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [
        "**better**, the record",
        "lucky",
        "baseline",
        "missing",
    ]
    assert "`lr` 0.1" in rows[0]


def test_the_leaderboard_here_is_made_of_the_records_here():
    assert (ROOT / LEADERBOARD).read_text() == leaderboards(TRACKS, RECORDS)


@pytest.fixture
def track_of(tmp_path, config):
    """Write a track over the small configuration; gives its path."""

    def write(**content):
        path = tmp_path / "tiny.yaml"
        settings = {"title": "A tiny one", "base": str(config), "frozen": ["data"], "metric": "val/loss", **content}
        path.write_text(yaml.safe_dump({"free": ["data.batch_size"], "seeds": [0, 1], **settings}))
        return path

    return write


def test_an_entry_from_its_configuration_to_the_leaderboard(run, track_of, tmp_path, monkeypatch, text_file):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    files = {str(text_file): hashlib.sha256(text_file.read_bytes()).hexdigest()}
    track = track_of(judged_by="tokens", target=3.2, max_tokens=12 * 4 * 32, files=files)
    records = tmp_path / "records"
    options = ["--track", track, "--records", records, "--threads", 1]
    studies = tmp_path / "studies"
    status, out, err = run("track", "run", *options, "--study", studies / "base")
    assert status == 0, err
    assert "it is the first record" in out
    made = json.loads((records / "tiny/baseline.json").read_text())
    assert [entry["tokens"] for entry in made["runs"]] == [12 * 4 * 32] * 2
    assert all(0 < entry["value"] <= 12 * 4 * 32 for entry in made["runs"])
    # an entry beyond the budget has no record
    too_long = ["--set", "trainer.max_steps=13", "--name", "long", "--study", studies / "long"]
    status, _, err = run("track", "run", *options, *too_long)
    assert status == 2
    assert "1,664 tokens were trained on by step 13, and max_tokens is 1,536" in err
    assert err.count("\n") == 1
    assert [path.name for path in records.rglob("*.json")] == ["baseline.json"]
    page = tmp_path / "page.md"
    assert (
        run("track", "table", "--tracks", track.parent, "--records", records, "--output", page)[0] == 2
    )  # config.yaml
    (tmp_path / "tracks").mkdir()
    track.rename(tmp_path / "tracks/tiny.yaml")
    assert run("track", "table", "--tracks", tmp_path / "tracks", "--records", records, "--output", page)[0] == 0
    assert "| **baseline**, the record |" in page.read_text()


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ({}, ["--set", "data.seq_len=16", "--name", "x"], r"data\.seq_len is frozen by the track tiny: it is 32"),
        ({}, ["--set", "model.optimizer.lr=1"], "give the entry another --name"),
        ({}, ["--set", "model.optimizer.lr=1", "--name", "../x"], r"'\.\./x' is no name of an entry"),
        ({}, ["--config", "missing.yaml"], r"missing\.yaml cannot be read"),
        ({"files": {"nowhere.txt": "0"}}, [], r"trains on nowhere\.txt, which is not there"),
        ({"files": {"README.md": "0"}}, [], r"README\.md is not the file of the track tiny"),
        ({"frosen": ["data"]}, [], r"unknown key 'frosen' in .*tiny\.yaml; did you mean 'frozen'"),
        ({"judged_by": "tokens"}, [], "it needs the target"),
        ({}, ["--jobs", "1000"], "--jobs 1000 is more than"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(run, track_of, tmp_path, content, arguments, message):
    options = ["--track", track_of(**content), "--records", tmp_path / "records", "--study", tmp_path / "study"]
    status, _, err = run("track", "run", *options, *arguments)
    assert status == 2
    assert re.search(message, err), err
    assert err.count("\n") == 1
    assert not (tmp_path / "study").exists()
