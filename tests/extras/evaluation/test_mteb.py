"""mteb's tasks: scores are those computed by hand, those of the suite beir, and those of the exported folder."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

import src.cli
from src.checkpoint import read_checkpoint, save_checkpoint
from src.encoder import load_encoder
from tests.extras.evaluation.conftest import WORDS, sentence, write_rows
from tests.extras.evaluation.test_beir import as_on_the_hub, write_collection

pytest.importorskip("mteb", reason="needs the package mteb")
pytestmark = pytest.mark.slow  # mteb takes many seconds to import

TASKS = ("STSBenchmark", "Banking77Classification", "NanoSciFactRetrieval")
PAIRS = [
    {"sentence1": sentence(i), "sentence2": sentence(7 * i + 1, 5 + i % 3), "score": (i * 7) % 11 / 2}
    for i in range(40)
]


@pytest.fixture
def data(in_folder) -> Path:
    """The datasets of three tasks, each in one of the formats that the hub has."""
    folder = in_folder / "data"
    (folder / "stsbenchmark-sts").mkdir(parents=True)
    with gzip.open(folder / "stsbenchmark-sts/test.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in PAIRS))
    for split, n in (("train", 60), ("test", 30)):
        texts = [f"{WORDS[3 + i % 3]} {sentence(i + n)}" for i in range(n)]
        rows = [{"text": text, "label": i % 3, "label_text": WORDS[3 + i % 3]} for i, text in enumerate(texts)]
        write_rows(folder / f"banking77/{split}.jsonl", rows)
    write_collection(folder / "NanoSciFactRetrieval", one="q0")  # which mteb would not pass over
    as_on_the_hub(folder / "NanoSciFactRetrieval", "mteb")
    return folder


def values(record) -> dict:
    """The values of scores, by task and metric."""
    return {(score["task"], score["metric"]): score["value"] for score in record["scores"]}


def test_the_scores_are_those_by_hand_and_of_the_suite_beir(evaluate, checkpoints, data):
    record, _ = evaluate("bert", "--suite", "mteb", "--tasks", *TASKS, "--data", data)
    found = values(record)
    encoder = load_encoder(checkpoints["bert"])
    first, second = (encoder.vectors([row[column] for row in PAIRS]) for column in ("sentence1", "sentence2"))
    expected = spearmanr(np.sum(first * second, axis=1), [row["score"] for row in PAIRS])[0]
    assert found["STSBenchmark", "cosine_spearman"] == pytest.approx(expected, abs=1e-4)
    retrieval, _ = evaluate("bert", "--suite", "beir", "--data", data / "NanoSciFactRetrieval", output="beir")
    ndcg = values(retrieval)["NanoSciFactRetrieval", "nDCG@10"]
    assert 0 < ndcg < 1
    assert found["NanoSciFactRetrieval", "ndcg_at_10"] == pytest.approx(ndcg, abs=1e-4)
    accuracy = found["Banking77Classification", "accuracy"]
    assert accuracy > 0.5  # of three classes
    assert found["mean", "main score"] == pytest.approx(np.mean([expected, ndcg, accuracy]), abs=1e-4)
    full = json.loads(Path("results/NanoSciFactRetrieval.mteb.json").read_text())
    assert full["scores"]["train"][0]["recall_at_100"] == 1
    # an interrupted evaluation goes on; other data are evaluated anew
    Path("results/parts/STSBenchmark.json").write_text('{"made_of": {"che')
    write_rows(data / "banking77/test.jsonl", [{"text": sentence(i), "label": i % 3} for i in range(12)])
    record, out = evaluate("bert", "--suite", "mteb", "--tasks", *TASKS, "--data", data)
    assert "1 of 3 parts are there" in out
    assert values(record)["STSBenchmark", "cosine_spearman"] == found["STSBenchmark", "cosine_spearman"]
    assert values(record)["Banking77Classification", "accuracy"] != accuracy


@pytest.mark.skipif("export" not in src.cli.VERBS, reason="this project has no export")
def test_the_scores_are_those_of_the_exported_folder(run, evaluate, checkpoints, data):
    import mteb
    from sentence_transformers import SentenceTransformer

    record, _ = evaluate("bert", "--suite", "mteb", "--tasks", *TASKS, "--data", data)
    found = values(record)
    # which is a folder of sentence-transformers where the checkpoint is a sentence encoder
    save_checkpoint({**read_checkpoint(checkpoints["bert"]), "sentence_encoder": {}}, Path("encoder.ckpt"))
    status, _, err = run("export", "--checkpoint", "encoder.ckpt", "--output", "hf")
    assert status == 0, err
    for name in TASKS:
        task = mteb.get_task(name)
        dataset = {**task.metadata.dataset, "path": str(data / task.metadata.dataset["path"].partition("/")[2])}
        task.metadata = task.metadata.model_copy(update={"dataset": dataset})
        (result,) = mteb.evaluate(SentenceTransformer("hf", device="cpu"), task, cache=None).task_results
        assert found[name, task.metadata.main_score] == pytest.approx(result.get_score(), abs=1e-4), name


def test_what_cannot_be_is_refused_in_one_line(run, checkpoints, data):
    write_rows(data / "stsbenchmark-sts/test.jsonl", [{"first": "the cat", "score": 1.0}] * 3)
    (data / "stsbenchmark-sts/test.jsonl.gz").unlink()
    (data / "banking77/test.jsonl").write_text('{"text": "the ca')
    for name, options, message in [
        (
            "bert",
            ("--tasks", "STSBenchmrk"),
            "mteb has no task or benchmark 'STSBenchmrk'; did you mean 'STSBenchmark'?",
        ),
        ("bert", ("--tasks", "CIFAR10ZeroShot"), "is of image and text: this encodes text alone"),
        ("bert", ("--tasks", "STS12"), "data/sts12-sts: put a copy of the hub's dataset mteb/sts12-sts there"),
        ("bert", ("--tasks", "STSBenchmark"), "mteb cannot run the task STSBenchmark on its data: "),
        ("bert", ("--tasks", "Banking77Classification"), "the data of the task Banking77Classification cannot be read"),
        ("gpt", ("--tasks", "STSBenchmark"), "holds a gpt: this needs one of bert"),
    ]:
        arguments = ("--checkpoint", checkpoints[name], "--suite", "mteb", "--data", data, *options)
        status, _, err = run("evaluate", *arguments)
        assert status == 2, err
        assert message in err.splitlines()[-1]
