"""What a model writes while it learns: continuations, translations, filled masks."""

import re
from pathlib import Path
from textwrap import wrap
from typing import Any

import lightning as L
import torch
from torch import Tensor

from src.architectures import architectures
from src.callbacks.tensorboard import tensorboards
from src.decoding import decode_continuation, encode_prompt, generate
from src.decoding.text import INCOMPLETE
from src.distributed import unsharded_model
from src.errors import InputError
from src.tasks import Task
from src.tasks.base import Batch
from src.tokenization import start_ids

LINE = 110  # characters of a line in TensorBoard, which does not break any


class TextExamples(L.Callback):
    """Write texts after each validation, to ``samples/step_N.txt`` in the run's folder and to TensorBoard."""

    verb: str  # the architecture's `writes`, in the registry, that the callback is for
    needs_model = True  # whether `texts` runs the network, which has to be gathered where it is sharded
    separator = "\n\n"

    def __init__(self) -> None:
        self.latest: list[str] = []

    def texts(self, task: Task, model: Any) -> list[str]:
        """Make the texts, on the first rank, with the whole network in evaluation mode."""
        raise NotImplementedError

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, Task)
        if architectures()[pl_module.architecture].writes != self.verb:
            able = ", ".join(entry.task for entry in architectures().values() if entry.writes == self.verb)
            name = type(self).__name__
            raise InputError(f"{name} is for {able}, not for {type(pl_module).__name__}: leave it out")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        model: Any = unsharded_model(pl_module) if self.needs_model else pl_module.model  # by every rank
        if not trainer.is_global_zero:
            return
        training = model.training
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            self.latest = self.texts(pl_module, model.eval())
        model.train(training)
        if not self.latest or trainer.fast_dev_run or trainer.sanity_checking:  # type: ignore[attr-defined]
            return
        path = Path(trainer.default_root_dir) / "samples" / f"step_{trainer.global_step:06d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.separator.join(self.latest) + "\n", encoding="utf-8")
        for writer in tensorboards(trainer):
            for i, text in enumerate(self.latest):
                lines = [part for line in text.splitlines() for part in wrap(line, LINE, drop_whitespace=False) or [""]]
                code = "\n".join("    " + line for line in lines)  # Markdown leaves it as it is
                writer.add_text(f"samples/{i}", code, trainer.global_step)


class TextSamples(TextExamples):
    """After each validation, continue some prompts: to ``samples/step_N.txt`` in the run and to TensorBoard as text.

    Args:
        prompts: what is continued; the empty prompt starts a new document. If None, that, and what the first words of
            the validation split begin.
        max_new_tokens: length of each sample at most.
        temperature: divides the logits.
        top_k: draw from the k likeliest tokens only.
    """

    verb = "generate"
    separator = "\n\n--------\n\n"

    def __init__(
        self,
        prompts: list[str] | None = None,
        max_new_tokens: int = 100,
        temperature: float = 0.8,
        top_k: int | None = 200,
    ) -> None:
        super().__init__()
        self.prompts = prompts
        self.max_new_tokens, self.temperature, self.top_k = max_new_tokens, temperature, top_k

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        if self.prompts is None and batch_idx == 0 and trainer.is_global_zero:
            assert isinstance(pl_module, Task)
            self.prompts = ["", _first_words(pl_module, batch["input_ids"][0])]

    def texts(self, task: Task, model: Any) -> list[str]:
        tokenizer = task.data.tokenizer
        special = task.data.special_tokens
        eos, start = tokenizer.token_to_id(special["eos_token"]), start_ids(tokenizer, special)
        assert eos is not None
        texts = self.prompts or [""]
        prompts = [encode_prompt(tokenizer, prompt, eos, start) for prompt in texts]
        continuations = generate(
            model,
            prompts,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            eos_id=eos,
            # the same draws at each validation, apart from the training's own random numbers
            generator=torch.Generator(task.device).manual_seed(0),
        )
        rows = zip(texts, prompts, continuations, strict=True)
        return [text + decode_continuation(tokenizer, prompt, ids) for text, prompt, ids in rows]


def _first_words(task: Task, row: Tensor) -> str:
    """Decode what a row of tokens, (seq,), begins with: the first words of its first document."""
    tokenizer, end = task.data.tokenizer, task.data.special_tokens["eos_token"]
    text = tokenizer.decode(row[: min(64, len(row) // 2)].tolist(), skip_special_tokens=False).partition(end)[0]
    words = re.match(r"\s*(?:\S+\s+){0,2}\S+(?=\s)", text)  # whole ones
    return words[0] if words else text[:8].rstrip(INCOMPLETE)  # of a script without spaces


class TranslationSamples(TextExamples):
    """After each validation, some of its translations beside their references, to the run's folder and TensorBoard.

    Args:
        examples: how many sentences, spread evenly over the split.
    """

    verb = "translate"
    needs_model = False  # the validation has translated all of them

    def __init__(self, examples: int = 5) -> None:
        super().__init__()
        self.examples = examples

    def texts(self, task: Any, model: Any) -> list[str]:
        found = task.examples
        chosen = [found[i * len(found) // self.examples] for i in range(min(self.examples, len(found)))]
        return ["\n".join(f"{name}: {text}" for name, text in example._asdict().items()) for example in chosen]


class MaskFills(TextExamples):
    """After each validation, some masked rows with the likeliest words, to the run's folder and TensorBoard.

    Args:
        examples: how many rows, the first of the validation split.
        top_k: words for each mask.
    """

    verb = "fill-mask"

    def __init__(self, examples: int = 3, top_k: int = 3) -> None:
        super().__init__()
        self.examples, self.top_k = examples, top_k
        self._rows: dict[str, Tensor] = {}

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx == 0 and trainer.is_global_zero and not self._rows:
            names = ("input_ids", "token_type_ids", "attention_mask", "labels")
            self._rows = {name: batch[name][: self.examples].clone() for name in names}

    def texts(self, task: Task, model: Any) -> list[str]:
        """Write each row as text, and below it a line a mask: the word that was there, and the guesses."""
        if not self._rows:
            return []
        rows = {name: tensor for name, tensor in self._rows.items() if name != "labels"}
        logits = model(**rows).masked_words
        guesses = logits.float().softmax(-1).topk(min(self.top_k, logits.shape[-1]))
        word, texts = task.data.tokenizer.id_to_token, []
        for row, labels in enumerate(self._rows["labels"]):
            ids = rows["input_ids"][row]
            lines = [task.data.tokenizer.decode(ids[rows["attention_mask"][row].bool()].tolist(), False)]
            for position in (labels != -100).nonzero()[:, 0].tolist():
                pairs = zip(guesses.indices[row, position], guesses.values[row, position], strict=True)
                found = ", ".join(f"{word(int(i))!r} {probability:.0%}" for i, probability in pairs)
                read, target = word(int(ids[position])), word(int(labels[position]))
                lines.append(f"  {read!r} at {position} was {target!r}: {found}")
            texts.append("\n".join(lines))
        return texts
