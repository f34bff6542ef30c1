"""mteb: an encoder on tasks of MTEB, the Massive Text Embedding Benchmark (Muennighoff et al. 2023)."""

from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from src.checkpoint import read_checkpoint
from src.cli.messages import did_you_mean
from src.data.sources import fingerprint, walk
from src.encoder import Encoder, load_encoder
from src.errors import InputError
from src.extras.evaluation.results import Evaluation, Part, Score, Scored, all_scores, file_of


def mteb(checkpoint: str, tasks: tuple[str, ...], data: Path | None = None, device: str = "cpu") -> Evaluation:
    """Run tasks of MTEB on the vectors of `embed`, and give the main score of each; the others go beside the results.

    Args:
        checkpoint: a checkpoint of a BERT, a Longformer or a retriever
        tasks: by mteb's names, benchmarks too: STSBenchmark Banking77Classification "MTEB(eng, v2)" ...
        data: a folder with copies of the hub's datasets by their names: stsbenchmark-sts for mteb/stsbenchmark-sts
        device: cpu, cuda, cuda:1, mps, ...
    """
    encoder = load_encoder(checkpoint, device)
    if data and not data.is_dir():
        raise InputError(f"there is no folder {data}")
    parts = []
    for task in _find(tasks):
        datasets = [one.metadata.dataset for one in _simple_tasks(task)]
        local = [_local(data, dataset["path"]) for dataset in datasets] if data else []
        settings = {
            "task": task.metadata.name,
            "revisions": [dataset["revision"] for dataset in datasets],
            "data": fingerprint({}, [file for folder in local for file in walk(folder)]) if data else None,
            "mteb": version("mteb"),
        }
        parts.append(Part(task.metadata.name, settings, _Run(encoder, checkpoint, task, data)))
    step = read_checkpoint(checkpoint).get("global_step")
    return Evaluation(step, parts, _with_mean, [f"mteb {version('mteb')}; the main score of each task"])


def _find(names: Iterable[str]) -> list[Any]:
    """Find tasks by their names, and those of benchmarks."""
    import mteb

    benchmarks = {benchmark.name: benchmark for benchmark in mteb.get_benchmarks()}
    found: dict[str, Any] = {}
    for name in names:
        try:
            tasks = benchmarks[name].tasks if name in benchmarks else [mteb.get_task(name)]
        except KeyError as error:
            known = [task.metadata.name for task in mteb.get_tasks(exclude_superseded=False)]
            hint = did_you_mean(name, [*known, *benchmarks]) or "; `mteb available-tasks` lists them"
            raise InputError(f"mteb has no task or benchmark {name!r}{hint}") from error
        for task in tasks:
            if task.modalities != ["text"]:
                kinds = " and ".join(sorted(task.modalities))
                raise InputError(f"the task {task.metadata.name} is of {kinds}: this encodes text alone")
            found[task.metadata.name] = task
    return list(found.values())


def _simple_tasks(task: Any) -> Iterator[Any]:
    """Yield a task, or those that it is the mean of."""
    if not task.is_aggregate:
        yield task
        return
    for one in task.tasks:
        yield from _simple_tasks(one)


def _local(data: Path, path: str) -> Path:
    """Find the copy of a dataset of the hub."""
    folder = data / path.rpartition("/")[2]
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: put a copy of the hub's dataset {path} there")
    return folder


class _Run:
    """Run one task."""

    def __init__(self, encoder: Encoder, checkpoint: str, task: Any, data: Path | None) -> None:
        self.encoder, self.checkpoint, self.task, self.data = encoder, checkpoint, task, data

    def __call__(self, folder: Path) -> list[Score]:
        from datasets.exceptions import DatasetsError
        from mteb import evaluate

        from src.extras.evaluation.embedding_model import MTEBEncoder

        name = self.task.metadata.name
        try:
            for task in _simple_tasks(self.task):
                if self.data:  # of this task alone: the class keeps its own
                    dataset = task.metadata.dataset
                    dataset = {**dataset, "path": str(_local(self.data, dataset["path"]).resolve())}
                    task.metadata = task.metadata.model_copy(update={"dataset": dataset})
                task.load_data()
        except (DatasetsError, ConnectionError, OSError, ValueError) as error:
            raise InputError(
                f"the data of the task {name} cannot be read: {_first_line(error)}; where the hub cannot be reached, "
                "give copies of its datasets by --data"
            ) from error
        model: Any = MTEBEncoder(self.encoder, Path(self.checkpoint).stem)
        try:
            (result,) = evaluate(model, self.task, cache=None, co2_tracker=False, show_progress_bar=False).task_results
        except (KeyError, ValueError) as error:  # of columns that are not there, or hold something else
            raise InputError(f"mteb cannot run the task {name} on its data: {_first_line(error)}") from error
        for task in _simple_tasks(self.task):
            task.unload_data()
        result.to_disk(file_of(folder, name, ".mteb.json"))
        return list(_scores(result, self.task.metadata.main_score))


def _scores(result: Any, metric: str) -> Iterator[Score]:
    """Read the main score of each split and language of a task."""
    several = sum(map(len, result.scores.values())) > 1
    for split, of_split in result.scores.items():
        for scores in of_split:
            subset = scores["hf_subset"]
            label = f"{result.task_name} ({split if subset == 'default' else f'{subset}, {split}'})"
            yield Score(label if several else result.task_name, metric, float(scores["main_score"]))


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().split("\n")[0]


def _with_mean(scored: Scored) -> list[Score]:
    """Put the mean over the tasks behind their scores."""
    scores = all_scores(scored)
    if len(scored) > 1:
        means = [fmean(score.value for score in of_task) for _, of_task in scored]
        scores.append(Score("mean", "main score", fmean(means), note=f"of {len(means)} tasks"))
    return scores
