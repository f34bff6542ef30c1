"""lm, core: a GPT on the tasks of lm-eval, the Language Model Evaluation Harness."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from src.checkpoint import load_writer, read_checkpoint
from src.cli.messages import did_you_mean
from src.cli.verb import NonNegative, Positive
from src.data.sources import fingerprint, walk
from src.errors import InputError
from src.extras.evaluation.results import Evaluation, Part, Score
from src.hardware import to_device

RESAMPLES = 1000  # of the bootstrap, for measures that have no formula of their standard error
# DCLM's CORE (Li et al. 2024) by lm-eval's names, with the examples before each question; it has no Jeopardy
CORE = (
    *(("hellaswag", 0), ("hellaswag", 10), ("arc_easy", 10), ("arc_challenge", 10), ("copa", 0), ("piqa", 10)),
    *(("commonsense_qa", 10), ("openbookqa", 0), ("lambada_openai", 0), ("wsc273", 0), ("winogrande", 0)),
    *(("boolq", 10), ("agieval_lsat_ar", 3), ("squad_completion", 10), ("coqa", 0)),
    *((f"bigbench_{name}_generate_until", 10) for name in ("qa_wikidata", "dyck_languages", "cs_algorithms")),
    *((f"bigbench_{name}_generate_until", 10) for name in ("operators", "repeat_copy_logic")),
    ("bigbench_language_identification_multiple_choice", 10),
)


def lm(
    checkpoint: str,
    tasks: tuple[str, ...],
    num_fewshot: NonNegative | None = None,
    include_path: Path | None = None,
    limit: Positive | None = None,
    batch_size: Positive = 16,
    device: str = "cpu",
) -> Evaluation:
    """Run tasks of lm-eval, or of YAML files of one's own in its format, which may name local data.

    Args:
        checkpoint: a checkpoint of a GPT
        tasks: by lm-eval's names, groups too: hellaswag lambada_openai arc_easy piqa wikitext ...
        num_fewshot: examples before each question, in place of the task's own number
        include_path: a folder of YAML files with tasks of your own
        limit: the first N examples of each task alone
        batch_size: requests at a time
        device: cpu, cuda, cuda:1, mps, ...
    """
    shots = [(task, num_fewshot) for task in dict.fromkeys(tasks)]
    return _evaluation(checkpoint, shots, include_path, limit, batch_size, device)


def core(
    checkpoint: str,
    include_path: Path | None = None,
    limit: Positive | None = None,
    batch_size: Positive = 16,
    device: str = "cpu",
) -> Evaluation:
    """Run the tasks of CORE (Li et al. 2024) as lm-eval has them: not the prompts, and so not the score, of the paper.

    Args:
        checkpoint: a checkpoint of a GPT
        include_path: a folder of YAML files that stand in for tasks by their names, as with local data
        limit: the first N examples of each task alone
        batch_size: requests at a time
        device: cpu, cuda, cuda:1, mps, ...
    """
    return _evaluation(checkpoint, list(CORE), include_path, limit, batch_size, device)


def _evaluation(
    checkpoint: str,
    tasks: list[tuple[str, int | None]],
    include_path: Path | None,
    limit: int | None,
    batch_size: int,
    device: str,
) -> Evaluation:
    content = read_checkpoint(checkpoint)
    trained = load_writer(content, checkpoint, "generate")
    to_device(trained.model, device)
    if include_path and not include_path.is_dir():
        raise InputError(f"--include-path {include_path} is no folder")
    from src.extras.evaluation.harness import GPTHarness  # takes seconds, which a refusal need not wait for

    harness = GPTHarness(trained, batch_size)
    manager = _manager([task for task, _ in tasks], include_path)
    own = fingerprint({}, walk(include_path)) if include_path else None
    parts = []
    for task, shots in tasks:
        settings = {"task": task, "num_fewshot": shots, "limit": limit, "own": own, "lm_eval": version("lm_eval")}
        name = task if shots is None else f"{task}.{shots}-shot"
        parts.append(Part(name, settings, _Run(harness, manager, task, shots, limit)))
    limited = f"; the first {limit:,} examples of each task alone" if limit else ""
    notes = [f"lm-eval {version('lm_eval')}; a context of {harness.max_length} tokens{limited}"]
    return Evaluation(content.get("global_step"), parts, notes=notes)


def _manager(tasks: list[str], include_path: Path | None) -> Any:
    """Find the tasks; those of lm-eval, some ten thousand files, are not read where one's own are enough."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(include_path), include_defaults=False) if include_path else None
    if manager is None or not set(tasks) <= set(manager.all_tasks):
        manager = TaskManager(include_path=str(include_path) if include_path else None)
    for task in tasks:
        if task not in manager.all_tasks:
            hint = did_you_mean(task, manager.all_tasks)
            raise InputError(f"lm-eval has no task {task!r}{hint or '; `lm-eval ls tasks` lists them'}")
    return manager


class _Run:
    """Run one task or group of lm-eval."""

    def __init__(self, harness: Any, manager: Any, task: str, shots: int | None, limit: int | None) -> None:
        self.harness, self.manager, self.task, self.shots, self.limit = harness, manager, task, shots, limit

    def __call__(self, folder: Path) -> list[Score]:
        from lm_eval.evaluator import evaluate

        loaded = self._load()
        for task in loaded["tasks"].values():
            own = task.get_config("num_fewshot")
            if self.shots is not None and own != 0:  # a task of none says so where examples do not fit it
                task.set_config(key="num_fewshot", value=self.shots)
            elif own is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=1234)  # lm-eval's own
        self.harness.n_cut = 0
        found = evaluate(
            self.harness, loaded, limit=self.limit, bootstrap_iters=RESAMPLES, log_samples=False, verbosity=None
        )
        note = "" if self.shots is None else f"{self.shots}-shot"
        scores = [score for task, of in found["results"].items() for score in _scores(task, of, note)]
        if self.harness.n_cut:
            print(f"{self.task}: {self.harness.n_cut:,} requests were cut to {self.harness.max_length} tokens")
            scores.append(Score(self.task, "requests cut to the context", self.harness.n_cut, note=note))
        return scores

    def _load(self) -> Any:
        from datasets.exceptions import DatasetsError

        try:
            return self.manager.load([self.task])
        except (DatasetsError, ConnectionError, OSError, ValueError) as error:
            raise InputError(
                f"the data of task {self.task} cannot be read: {str(error).splitlines()[0]}; where the hub cannot be "
                "reached, give a YAML file with local data by --include-path"
            ) from error


def _scores(task: str, values: dict[str, Any], note: str) -> list[Score]:
    """Read what lm-eval says of a task: ``MEASURE,FILTER`` and ``MEASURE_stderr,FILTER``."""
    found = []
    for key, value in values.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = values.get(f"{metric}_stderr,{kind}")
        half = 1.96 * error if isinstance(error, float) else None
        low, high = (None, None) if half is None else (value - half, value + half)
        found.append(Score(task, metric if kind == "none" else f"{metric} ({kind})", float(value), low, high, note))
    return found
