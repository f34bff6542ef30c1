"""glue: an encoder fine-tuned on the nine tasks of GLUE (Wang et al. 2019), and scored on their development sets."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from src.architectures import architectures
from src.atomic import atomic_file
from src.checkpoint import read_checkpoint
from src.classifier import Row
from src.cli.messages import did_you_mean
from src.cli.verb import NonNegative, NonNegativeFloat, Positive
from src.errors import InputError
from src.extras.evaluation.fine_tuning import Recipe, fine_tune, predict
from src.extras.evaluation.glue_data import TASKS, Examples, GlueTask, files_of_split, read_split
from src.extras.evaluation.results import Evaluation, Part, Score, Scored
from src.hardware import to_device
from src.models import BERTClassifier, BERTClassifierConfig, BERTEncoder
from src.tokenization import bert_ids, bert_row

SMALL = ("mrpc", "stsb", "rte")  # which gain by a network that has learnt MNLI (Liu et al. 2019, section 5.1)
LEARNING_RATES = (2e-5, 3e-5, 4e-5, 5e-5)
MAX_LEN = 128  # tokens of a row, as in BERT's code


def glue(
    checkpoint: str,
    data: str = "nyu-mll/glue",
    tasks: tuple[str, ...] = tuple(TASKS),
    lr: tuple[NonNegativeFloat, ...] = LEARNING_RATES,
    seeds: tuple[NonNegative, ...] = (0, 1, 2),
    epochs: Positive = 3,
    batch_size: Positive = 32,
    from_mnli: bool = False,
    device: str = "cpu",
) -> Evaluation:
    """Fine-tune an encoder on each task of GLUE with several seeds, and score it on the development set.

    As in BERT's paper the learning rate is the one that is best there, by the mean over the seeds; the interval is
    Student's t over the seeds.

    Args:
        checkpoint: a checkpoint of a BERT, or of another encoder of its kind
        data: a folder with a folder a task, as rte/train.parquet, rte/validation.jsonl, ...; or the hub's
        tasks: cola sst2 mrpc stsb qqp mnli qnli rte wnli, or some of them
        lr: learning rates to choose from
        seeds: of the fine-tuning
        epochs: over the training rows
        batch_size: rows a step
        from_mnli: fine-tune mrpc, stsb and rte from the network that was fine-tuned on mnli with their rate and seed
        device: cpu, cuda, cuda:1, mps, ...
    """
    for task in tasks:
        if task not in TASKS:
            raise InputError(f"GLUE has no task {task!r}{did_you_mean(task, TASKS)}; there are {', '.join(TASKS)}")
    chosen = [task for task in TASKS if task in tasks or (from_mnli and task == "mnli")]
    if from_mnli:
        chosen.sort(key=lambda task: task != "mnli")  # before those that start from it
    encoder = PretrainedEncoder(read_checkpoint(checkpoint), checkpoint, device)
    parts = []
    for glue_task in map(TASKS.__getitem__, chosen):
        name, task_data = glue_task.name, TaskData(glue_task, data, encoder)
        for rate in dict.fromkeys(lr):
            for seed in dict.fromkeys(seeds):
                recipe = Recipe(rate, seed, epochs, batch_size)
                start = f"mnli.lr-{rate:g}.seed-{seed}.pt" if from_mnli and name in (*SMALL, "mnli") else None
                settings = {
                    "task": name,
                    **asdict(recipe),
                    "from_mnli": bool(start),
                    "data": task_data.fingerprint,
                }
                run = _Run(task_data, encoder, recipe, start)
                parts.append(Part(f"{name}.lr-{rate:g}.seed-{seed}", settings, run))
    notes = [f"development sets; {epochs} epochs, batches of {batch_size}, the best learning rate of {_rates(lr)}"]
    return Evaluation(encoder.step, parts, summarize, notes)


class PretrainedEncoder:
    """The encoder of a checkpoint, to make classifiers of."""

    def __init__(self, content: dict[str, Any], path: str, device: str) -> None:
        held = content["architecture"]
        if architectures()[held].encoder is not BERTEncoder:
            known = " or a ".join(name for name, entry in architectures().items() if entry.encoder is BERTEncoder)
            raise InputError(f"checkpoint {path} holds a {held}: this needs a {known}")
        self.step: int | None = content.get("global_step")
        self.device, self.content = device, content
        self.tokenizer = Tokenizer.from_str(content["tokenizer"])
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.special_ids = bert_ids(self.tokenizer)
        self.weights = {
            name.removeprefix("model.encoder."): weight
            for name, weight in content["state_dict"].items()
            if name.startswith("model.encoder.")
        }

    def rows(self, texts: Sequence[Sequence[str]]) -> list[Row]:
        """Make a row of each text or pair; tells how many were cut."""
        length = min(MAX_LEN, self.content["model_config"]["max_seq_len"])
        columns = [self.tokenizer.encode_batch(list(one), add_special_tokens=False) for one in zip(*texts, strict=True)]
        encoded = [[encoding.ids for encoding in parts] for parts in zip(*columns, strict=True)]
        if cut := sum(sum(map(len, parts)) + len(parts) + 1 > length for parts in encoded):
            print(f"{cut:,} of {len(encoded):,} rows are cut to {length} tokens")
        return [bert_row(parts, length, self.special_ids) for parts in encoded]

    def classifier(self, n_labels: int, weights: dict[str, torch.Tensor]) -> BERTClassifier:
        """Make a classifier with encoder weights; a pooler that they lack, as a retriever's do, is new."""
        config = BERTClassifierConfig(**self.content["model_config"], n_labels=n_labels)
        model = BERTClassifier(config)
        model.encoder.load_state_dict({**model.encoder.state_dict(), **weights})
        to_device(model, self.device)
        return model


class TaskData:
    """The rows of a task, read and encoded when the first of its parts needs them."""

    def __init__(self, task: GlueTask, source: str, encoder: PretrainedEncoder) -> None:
        self.task, self.encoder, self.where = task, encoder, source
        splits = ("train", *task.splits.values())
        # what is missing is refused before anything is trained
        self.fingerprint = files_of_split(source, task, splits)

    @cached_property
    def train(self) -> tuple[list[Row], NDArray[np.float64]]:
        """Training rows, and their labels."""
        return self._encoded("train")

    @cached_property
    def development(self) -> dict[str, tuple[list[Row], NDArray[np.float64]]]:
        """Rows and labels of each development set; there is one, without a name, but for MNLI."""
        return {name: self._encoded(split) for name, split in self.task.splits.items()}

    def _encoded(self, split: str) -> tuple[list[Row], NDArray[np.float64]]:
        examples: Examples = read_split(self.where, self.task, split)
        return self.encoder.rows(examples.texts), np.array(examples.labels)


class _Run:
    """Fine-tune on a task with one learning rate and seed, and score the development set.

    Args:
        data: of the task.
        encoder: pretrained.
        recipe: how.
        weights: the name of the file with the weights after MNLI: MNLI writes it, the small tasks start from it.
    """

    def __init__(self, data: TaskData, encoder: PretrainedEncoder, recipe: Recipe, weights: str | None) -> None:
        self.data, self.encoder, self.recipe, self.weights = data, encoder, recipe, weights

    def __call__(self, folder: Path) -> list[Score]:
        task, recipe, pad = self.data.task, self.recipe, self.encoder.special_ids["pad_token"]
        rows, labels = self.data.train
        print(f"{task.name}: learning rate {recipe.lr:g}, seed {recipe.seed}, {len(rows):,} rows", flush=True)
        devices = [torch.device(self.encoder.device)] if self.encoder.device.startswith("cuda") else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(recipe.seed)
            model = self.encoder.classifier(task.n_labels, self._start(folder))
            fine_tune(model, rows, labels, pad, recipe)
        if self.weights and task.name == "mnli":
            with atomic_file(folder / self.weights) as file:
                torch.save(model.encoder.state_dict(), file)
        scores = []
        for name, (texts, expected) in self.data.development.items():
            for metric, value in task.scores(predict(model, texts, pad), expected).items():
                scores.append(Score(task.label, f"{metric} ({name})" if name else metric, value))
        return scores

    def _start(self, folder: Path) -> dict[str, torch.Tensor]:
        if not self.weights or self.data.task.name == "mnli":
            return self.encoder.weights
        path = folder / self.weights
        if not path.is_file():
            raise InputError(f"{path} is gone: delete {folder / 'parts'}/mnli.* to fine-tune on MNLI again")
        return torch.load(path, map_location="cpu", weights_only=True)


def summarize(scored: Scored) -> list[Score]:
    """Report each task at its best learning rate, by the mean of its measures over the seeds, and the mean of all.

    As in BERT's paper WNLI is not in the mean: its development set is made to mislead.
    """
    scores, means = [], {}
    for name, group in groupby(scored, key=lambda one: one[0].settings["task"]):
        by_rate: dict[float, list[list[Score]]] = {}
        for part, of_part in group:
            by_rate.setdefault(part.settings["lr"], []).append(of_part)
        rate, runs = max(by_rate.items(), key=lambda one: fmean(score.value for run in one[1] for score in run))
        note = f"learning rate {rate:g}, {len(runs)} seed{'s' if len(runs) > 1 else ''}"
        of_task = list(_over_seeds(runs, note))
        scores += of_task
        if name != "wnli":
            means[name] = fmean(score.value for score in of_task)
    if len(means) > 1:
        scores.append(
            Score("mean", "", fmean(means.values()), note=f"of {len(means)} tasks, each the mean of its scores")
        )
    return scores


def _over_seeds(runs: list[list[Score]], note: str) -> Iterator[Score]:
    """Average each measure over the seeds, with the interval of the mean by Student's t."""
    from scipy.stats import t as student

    n = len(runs)
    for same in zip(*runs, strict=True):
        values = [score.value for score in same]
        mean = fmean(values)
        half = float(student.ppf(0.975, n - 1)) * stdev(values) / n**0.5 if n > 1 else None
        low, high = (None, None) if half is None else (mean - half, mean + half)
        yield Score(same[0].task, same[0].metric, mean, low, high, note)


def _rates(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)
