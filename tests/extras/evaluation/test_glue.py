"""GLUE: its measures are scikit-learn's and SciPy's, its rows are read in the hub's format, and encoders learn."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from src.checkpoint import read_checkpoint
from src.extras.evaluation.fine_tuning import Recipe, fine_tune, predict
from src.extras.evaluation.glue import PretrainedEncoder, summarize
from src.extras.evaluation.glue_data import TASKS, read_split
from src.extras.evaluation.results import Part, Score
from tests.extras.evaluation.conftest import WORDS, sentence, write_rows


def rows_of(name: str, n: int, seed: int) -> list[dict]:
    """Rows of a task; the first word of the first text decides the label."""
    task, order = TASKS[name], np.random.default_rng(seed)
    rows = []
    for i in range(n):
        label = int(order.integers(task.n_labels if task.n_labels > 1 else 6))
        texts = {column: f"{WORDS[3 + label]} {sentence(i + k)}" for k, column in enumerate(task.texts)}
        rows.append({**texts, "label": float(label) if task.n_labels == 1 else label, "idx": i})
    return rows


def write_task(folder: Path, name: str) -> None:
    """A task as Parquet in shards, as a table or as JSON lines."""
    from datasets import ClassLabel, Dataset, Features, Value

    task = TASKS[name]
    folder.mkdir(parents=True)
    for split in ("train", *task.splits.values()):
        rows = rows_of(name, 64 if split == "train" else 24, len(split))
        if name in ("rte", "mnli"):
            label = ClassLabel(names=["yes", "maybe", "no"][: task.n_labels])
            columns = {**dict.fromkeys(task.texts, Value("string")), "label": label, "idx": Value("int32")}
            parquet = Dataset.from_list(rows, Features(columns))
            for i in range(2):
                parquet.shard(2, i).to_parquet(folder / f"{split}-0000{i}-of-00002.parquet")
        elif name == "cola":
            lines = ["sentence\tlabel", *(f"{row['sentence']}\t{row['label']}" for row in rows)]
            (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
        else:
            write_rows(folder / f"{split}.jsonl", rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """All nine tasks."""
    folder = tmp_path_factory.mktemp("glue")
    for name in TASKS:
        write_task(folder / name, name)
    return folder


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_measures_are_those_of_scikit_learn_and_scipy(task):
    order = np.random.default_rng(0)
    labels = order.integers(max(task.n_labels, 5) if task.n_labels == 1 else task.n_labels, size=200).astype(float)
    noisy = np.where(order.random(200) < 0.3, order.permutation(labels), labels)
    predictions = noisy + order.integers(3, size=200) / 4 if task.n_labels == 1 else noisy
    expected = {
        "accuracy": lambda: accuracy_score(labels, predictions),
        "F1": lambda: f1_score(labels, predictions),
        "Matthews": lambda: matthews_corrcoef(labels, predictions),
        "Pearson": lambda: stats.pearsonr(labels, predictions)[0],
        "Spearman": lambda: stats.spearmanr(labels, predictions)[0],
    }
    found = task.scores(predictions, labels)
    assert found == pytest.approx({metric: expected[metric]() for metric in task.metrics}, abs=1e-6)
    constant = task.scores(np.ones(200), labels)
    for metric in set(task.metrics) - {"accuracy", "F1"}:
        assert constant[metric] == 0
    if "Matthews" in task.metrics:
        assert matthews_corrcoef(labels, np.ones(200)) == 0


@pytest.mark.parametrize("name", TASKS)
def test_rows_are_read_as_they_were_written(in_folder, data, name):
    for split in ("train", *TASKS[name].splits.values()):
        rows = rows_of(name, 64 if split == "train" else 24, len(split))
        found = read_split(str(data), TASKS[name], split)
        assert found.labels == [row["label"] for row in rows]
        assert found.texts == [[row[column] for column in TASKS[name].texts] for row in rows]


def test_encoders_learn_and_an_interrupted_evaluation_goes_on(evaluate, data):
    fast = ("--suite", "glue", "--data", data, "--tasks", "cola", "--lr", 0, 5e-3, "--epochs", 6, "--batch-size", 16)
    evaluate("bert", *fast, "--seeds", 0)
    record, out = evaluate("bert", *fast, "--seeds", 0, 1)
    assert "2 of 4 parts are there from an earlier evaluation" in out
    (score,) = record["scores"]
    values = [[part["scores"][0]["value"] for part in record["parts"][i : i + 2]] for i in (0, 2)]
    assert score["value"] == pytest.approx(np.mean(values[1]))  # at the better of the two learning rates
    assert score["value"] > max(0.6, np.mean(values[0]))
    assert score["note"] == "learning rate 0.005, 2 seeds"
    half = stats.sem(values[1]) * stats.t.ppf(0.975, 1)
    assert [score["low"], score["high"]] == pytest.approx([score["value"] - half, score["value"] + half])
    table = Path("results/results.md").read_text()
    assert f"| CoLA | Matthews | {score['value']:.4f} | [{score['low']:.4f}, {score['high']:.4f}] |" in table


def test_the_mean_is_that_of_the_tasks_but_for_wnli():
    found = {"mrpc": {"accuracy": 0.8, "F1": 0.9}, "rte": {"accuracy": 0.6}, "wnli": {"accuracy": 0.1}}
    scored = [
        (Part(task, {"task": task, "lr": 1e-5}, list), [Score(task, metric, value) for metric, value in of.items()])
        for task, of in found.items()
    ]
    *_, mean = summarize(scored)
    assert (mean.task, mean.value) == ("mean", pytest.approx((0.85 + 0.6) / 2))


def test_a_score_is_fitted_by_the_squared_error(checkpoints):
    encoder = PretrainedEncoder(read_checkpoint(checkpoints["bert"]), "bert.ckpt", "cpu")
    rows, labels = encoder.rows([[word, WORDS[0]] for word in WORDS[3:9]]), np.linspace(0, 5, 6)
    torch.manual_seed(0)
    model = encoder.classifier(1, encoder.weights)
    pad = encoder.special_ids["pad_token"]
    before = predict(model, rows, pad)
    fine_tune(model, rows, labels, pad, Recipe(1e-2, seed=0, epochs=30))
    after = predict(model, rows, pad, batch_size=4)
    assert np.mean((after - labels) ** 2) < 0.7 * np.mean((before - labels) ** 2)
    assert after.mean() == pytest.approx(labels.mean(), abs=0.3)  # the least squares have the mean


def test_small_tasks_start_from_the_network_that_has_learnt_mnli(run, evaluate, checkpoints, data):
    options = (
        "--suite",
        "glue",
        "--data",
        data,
        "--tasks",
        "rte",
        "--from-mnli",
        "--seeds",
        0,
        "--lr",
        3e-3,
        "--epochs",
        1,
    )
    record, _ = evaluate("bert", *options)
    assert [part["settings"]["task"] for part in record["parts"]] == ["mnli", "rte"]
    assert [score["metric"] for score in record["scores"][:2]] == ["accuracy (matched)", "accuracy (mismatched)"]
    # rte does read those weights: without them it does not begin
    Path("results/mnli.lr-0.003.seed-0.pt").unlink()
    Path("results/parts/rte.lr-0.003.seed-0.json").unlink()
    status, _, err = run("evaluate", "--checkpoint", checkpoints["bert"], "--output", "results", *options)
    assert status == 2
    assert "mnli.lr-0.003.seed-0.pt is gone: delete results/parts/mnli.*" in err


def test_what_cannot_be_is_refused_in_one_line(run, checkpoints, in_folder):
    data = in_folder / "glue"
    for name in ("rte", "sst2", "qnli", "cola"):
        write_task(data / name, name)
    for file in (data / "rte").glob("validation*"):
        file.unlink()
    write_rows(data / "sst2/validation.jsonl", [{"sentence": "x", "label": -1}])
    write_rows(data / "qnli/train.jsonl", [{"question": "x", "label": 1}])
    for name, options, message in [
        ("bert", ("--tasks", "rte"), "rte has no split 'validation': put validation.parquet"),
        ("bert", ("--tasks", "rt"), "GLUE has no task 'rt'; did you mean 'rte'?"),
        ("gpt", ("--tasks", "cola"), "holds a gpt: this needs a bert"),
        ("bert", ("--tasks", "sst2", "--epochs", 1, "--lr", 0, "--seeds", 0), "a label that is none of its own: -1"),
        ("bert", ("--tasks", "qnli"), "has no column 'sentence'"),
        ("bert", ("--data", "./nowhere"), "there is no folder ./nowhere"),
    ]:
        given = ("--data", data) if "--data" not in options else ()
        status, _, err = run("evaluate", "--checkpoint", checkpoints[name], "--suite", "glue", *given, *options)
        assert status == 2, options
        assert message in err.splitlines()[-1], json.dumps(err)
