"""Where callbacks put what they have to show."""

from pathlib import Path
from textwrap import wrap

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from tokenizers import Tokenizer
from torch.utils.tensorboard import SummaryWriter

from src.architectures import architectures
from src.errors import InputError
from src.tasks import Task

LINE = 110  # characters of a sample's line in TensorBoard, which does not break any


def check_writes(callback: L.Callback, task: Task, verb: str) -> None:
    """Refuse a callback that writes text by a network of another kind."""
    if architectures()[task.architecture].writes != verb:
        able = ", ".join(entry.task for entry in architectures().values() if entry.writes == verb)
        raise InputError(f"{type(callback).__name__} is for {able}, not for {type(task).__name__}: leave it out")


def tensorboards(trainer: L.Trainer) -> list[SummaryWriter]:
    """The TensorBoard writers of a run; none in a trial run of a few batches, or with other loggers."""
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def record_samples(trainer: L.Trainer, texts: list[str], separator: str = "\n\n") -> None:
    """Write samples to ``samples/step_N.txt`` in the run's folder and to TensorBoard, as they stand."""
    if trainer.fast_dev_run or trainer.sanity_checking:  # type: ignore[attr-defined]
        return
    path = Path(trainer.default_root_dir) / "samples" / f"step_{trainer.global_step:06d}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(separator.join(texts) + "\n", encoding="utf-8")
    for writer in tensorboards(trainer):
        for i, text in enumerate(texts):
            lines = [part for line in text.splitlines() for part in wrap(line, LINE, drop_whitespace=False) or [""]]
            quoted = "\n".join("    " + line for line in lines)  # by four spaces Markdown leaves it as it stands
            writer.add_text(f"samples/{i}", quoted, trainer.global_step)


def token_labels(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    """Each token as a person reads it, on one line: a space within it is a dot."""
    texts = (tokenizer.decode([i], skip_special_tokens=False) for i in ids)
    return [text.replace(" ", "·").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r") for text in texts]
