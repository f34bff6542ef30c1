"""lm-eval's tasks: the figures are those that lm-eval computes from the exported folder."""

import pytest
import yaml

import src.cli
from tests.extras.evaluation.conftest import sentence, write_rows

pytest.importorskip("lm_eval", reason="needs the package lm_eval")
pytestmark = pytest.mark.slow  # lm-eval takes many seconds to import, and to find its ten thousand tasks

TASKS = {
    "toy_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "toy_text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    },
    "toy_continuation": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{text}}",
        "generation_kwargs": {"until": ["a", "\n"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match"}],
    },
}


@pytest.fixture
def tasks(in_folder):
    """Tasks of one's own on local data; some texts are longer than the context of 24 tokens."""
    rows = [
        {
            "question": sentence(i, 3 + 4 * (i % 7)),
            "choices": [" " + sentence(i + k, 1 + k) for k in range(3)],
            "label": i % 3,
            "text": " ".join(sentence(i + k) for k in range(1 + i % 5)),
        }
        for i in range(12)
    ]
    write_rows(in_folder / "data" / "rows.jsonl", rows)
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "data/rows.jsonl"}}, "test_split": "test"}
    (in_folder / "tasks").mkdir()
    for name, task in TASKS.items():
        (in_folder / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **data, **task}))
    return in_folder / "tasks"


@pytest.mark.skipif("export" not in src.cli.VERBS, reason="this project has no export")
def test_the_figures_are_those_of_lm_eval_on_the_exported_folder(run, evaluate, checkpoints, tasks):
    from lm_eval.api.instance import Instance
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from src.checkpoint import load_trained
    from src.extras.evaluation.harness import GPTHarness
    from src.models import GPT

    options = ("--suite", "lm", "--tasks", *TASKS, "--include-path", tasks, "--batch-size", 5)
    record, _ = evaluate("gpt", *options)
    assert run("export", "--checkpoint", checkpoints["gpt"], "--output", "hf")[0] == 0
    theirs = HFLM(pretrained="hf", device="cpu", batch_size=3, dtype="float32", max_length=24)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    expected = simple_evaluate(theirs, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0)
    found = {(score["task"], score["metric"]): score["value"] for score in record["scores"]}
    compared = 0
    for task, values in expected["results"].items():
        for key, value in values.items():
            metric, _, kind = key.partition(",")
            if kind == "none" and not metric.endswith("_stderr"):
                assert found[task, metric] == pytest.approx(value, rel=1e-4), (task, metric)
                compared += 1
    assert compared == 5
    assert found["toy_choice", "requests cut to the context"] > 0

    ours = GPTHarness(load_trained(checkpoints["gpt"], GPT), batch_size=4)
    pairs = [(sentence(i, 1 + 2 * i), " " + sentence(i + 1, 2)) for i in range(6)] + [("", "the cat"), ("the ", "cat")]
    asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    for one, other in zip(ours.loglikelihood(asked), theirs.loglikelihood(asked), strict=True):
        assert one[0] == pytest.approx(other[0], abs=1e-4)
        assert one[1] == other[1]
    texts = [Instance("loglikelihood_rolling", {}, (sentence(i, 20 * i + 1),), i) for i in range(4)]
    assert ours.loglikelihood_rolling(texts) == pytest.approx(theirs.loglikelihood_rolling(texts), abs=1e-4)
    stop = {"until": ["e", "."], "max_gen_toks": 6}
    prompts = [Instance("generate_until", {}, (sentence(i, 2 + i), stop), i) for i in range(5)]
    assert ours.generate_until(prompts) == theirs.generate_until(prompts)


def test_an_interrupted_evaluation_goes_on_with_the_next_task(evaluate, tasks):
    first, _ = evaluate("gpt", "--suite", "lm", "--tasks", "toy_choice", "--include-path", tasks, "--limit", 4)
    both, out = evaluate(
        "gpt", "--suite", "lm", "--tasks", "toy_choice", "toy_text", "--include-path", tasks, "--limit", 4
    )
    assert "1 of 2 parts are there from an earlier evaluation" in out
    assert both["scores"][: len(first["scores"])] == first["scores"]
    assert "the first 4 examples of each task alone" in both["notes"][0]


def test_lm_eval_has_the_tasks_of_core():
    from lm_eval.tasks import TaskManager

    from src.extras.evaluation.language_tasks import CORE

    assert {task for task, _ in CORE} <= set(TaskManager().all_tasks)
    assert len(CORE) == 21


def test_what_cannot_be_is_refused_in_one_line(run, checkpoints, tasks, monkeypatch):
    (tasks / "missing.yaml").write_text(
        yaml.safe_dump(
            {"task": "toy_missing", **TASKS["toy_choice"], "dataset_path": "json", "test_split": "test"}
            | {"dataset_kwargs": {"data_files": {"test": "gone.jsonl"}}}
        )
    )
    for options, message in [
        (
            ("--tasks", "toy_chioce", "--include-path", tasks),
            "lm-eval has no task 'toy_chioce'; did you mean 'toy_choice'?",
        ),
        (("--tasks", "toy_missing", "--include-path", tasks), "the data of task toy_missing cannot be read"),
        (("--tasks", "toy_choice", "--include-path", "nowhere"), "--include-path nowhere is no folder"),
        ((), "the following arguments are required: --tasks"),
    ]:
        status, _, err = run("evaluate", "--checkpoint", checkpoints["gpt"], "--suite", "lm", *options)
        assert status == 2, options
        assert message in err.splitlines()[-1]
