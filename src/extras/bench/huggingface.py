"""The same network in `transformers`, trained by its Trainer and decoded by its ``generate``.

The only place that imports `transformers`, and only when it is asked for.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib.metadata import version
from inspect import signature
from io import StringIO
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn
from torch.utils.data import IterableDataset

from src.checkpoint import save_checkpoint
from src.cli import VERBS, run_verb
from src.data.loader import TARGETS
from src.data.store import IGNORED
from src.errors import InputError
from src.extras.bench.peers import Batch, Search
from src.extras.bench.profiler import clock
from src.tasks import Task


def counterpart(task: Task) -> nn.Module:
    """Load the network of a task in `transformers`, with its weights, as the verb export writes them."""
    if "export" not in VERBS:
        raise InputError("--against transformers needs the verb export, of the extra huggingface, which is not here")
    try:
        import transformers
    except ImportError as error:
        raise InputError("--against transformers needs it: install the extra 'bench'") from error
    weights = {f"model.{name}": tensor.detach().float().cpu() for name, tensor in task.model.state_dict().items()}
    checkpoint: dict[str, Any] = {"state_dict": weights, "config": "{}"}
    task.on_save_checkpoint(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        saved, exported = Path(folder) / "model.ckpt", Path(folder) / "model"
        save_checkpoint(checkpoint, saved)
        try:
            with redirect_stdout(StringIO()) as said:
                run_verb(["export", "--checkpoint", str(saved), "--output", str(exported)])
        except InputError as error:
            raise InputError(f"--against transformers: {error}; --model.config.norm and the like change it") from error
        for line in said.getvalue().splitlines():
            if line.startswith("note: "):  # of a part that is left out: the two would not compute the same
                raise InputError(f"--against transformers: {line[6:]}; --model.config.norm and the like change it")
        (name,) = json.loads((exported / "config.json").read_text(encoding="utf-8"))["architectures"]
        network = getattr(transformers, name)
        if "global_attention_mask" in signature(network.forward).parameters:
            raise InputError("--against transformers: its Longformer expects the global tokens in each batch")
        model = network.from_pretrained(exported)
    for name, parameter in model.named_parameters():
        if name.endswith("embed_positions.weight"):  # sines, which `from_pretrained` would let train
            parameter.requires_grad_(False)
    return model.to(task.device)


def arguments(model: nn.Module, batch: Batch) -> Batch:
    """Select what a network of `transformers` takes of a batch, whose names are the same here."""
    taken = {name: tensor for name, tensor in batch.items() if name in signature(type(model).forward).parameters}
    # a decoder alone would shift the labels, which are shifted already here
    return taken if "attention_mask" in batch else {**taken, "shift_labels": batch["labels"]}


def about_network(model: nn.Module) -> dict[str, Any]:
    """Describe a network by its class and the number of parameters that are trained."""
    n_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"network": type(model).__name__, "parameters": n_parameters}


class _Replay(IterableDataset[Batch]):
    """Repeat batches that lie in memory."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def __iter__(self) -> Iterator[Batch]:
        return cycle(self.batches)


class HuggingFaceTraining:
    """Train with ``Trainer`` (an encoder-decoder with ``Seq2SeqTrainer``) on the batches of the run here, in memory.

    With the precision, clipping, accumulation, label smoothing and compilation of the run, PyTorch's fused AdamW,
    and nothing reported or saved.

    Args:
        trainer: of the run here.
        task: of the run here; its weights are taken over.
        batch: to compare the two losses on.
        warmup: steps that do not count.
        steps: steps that do.
    """

    def __init__(self, trainer: L.Trainer, task: Task, batch: Batch, warmup: int, steps: int) -> None:
        for name, option in (("documents", "separate_documents"), ("document_starts", "unpadded")):
            if name in batch:
                raise InputError(f"--against transformers: it reads a row as one document: set --data.{option} false")
        self.model: Any = counterpart(task)
        self.task, self.warmup, self.steps = task, warmup, steps
        self.accumulate = trainer.accumulate_grad_batches
        self._data, self._folder = _Replay(), tempfile.TemporaryDirectory()
        self._times: list[float] = []
        self.trainer = self._make(trainer)
        self.about = {
            "program": f"transformers {version('transformers')}, {type(self.trainer).__name__}",
            **about_network(self.model),
            "loss_here": loss_here(task, batch),  # on the same weights, in float32
            "loss_there": self.loss(batch),
        }

    def _make(self, ours: L.Trainer) -> Any:
        import transformers

        times, warmup, steps, device = self._times, self.warmup, self.steps, ours.strategy.root_device

        class Clock(transformers.TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.global_step in (warmup, warmup + steps):
                    times.append(clock(device))

        prefix = "Seq2Seq" if self.model.config.is_encoder_decoder else ""
        settings = getattr(transformers, f"{prefix}TrainingArguments")(
            output_dir=self._folder.name,
            max_steps=warmup + steps,
            per_device_train_batch_size=1,  # of batches that are batches already
            gradient_accumulation_steps=self.accumulate,
            bf16=str(ours.precision).startswith("bf16"),
            fp16=str(ours.precision).startswith("16"),
            use_cpu=device.type == "cpu",
            optim="adamw_torch_fused",
            max_grad_norm=ours.gradient_clip_val or 0.0,
            label_smoothing_factor=getattr(self.task, "label_smoothing", 0.0),
            torch_compile=self.task.compile_blocks,
            logging_steps=ours.log_every_n_steps,  # type: ignore[attr-defined]
            logging_nan_inf_filter=False,  # it would wait for the loss at each step
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            **({"gradient_checkpointing": True} if self.task.activation_checkpointing else {}),
        )
        trainer = getattr(transformers, f"{prefix}Trainer")(
            model=self.model,
            args=settings,
            train_dataset=self._data,
            data_collator=lambda batches: batches[0],
            callbacks=[Clock()],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        return trainer

    def rate(self, batches: list[Batch]) -> float:
        """Train on these; return tokens a second, those of the warm-up left out."""
        self._data.batches = [arguments(self.model, batch) for batch in batches]
        self._times.clear()
        self.trainer.train()
        start, end = self._times
        # an epoch's last step may have had fewer here
        first, last = (self.accumulate * steps for steps in (self.warmup, self.warmup + self.steps))
        counted = islice(cycle(batches), first, last)
        return sum(int(self.task.count_tokens(batch)) for batch in counted) / (end - start)

    def loss(self, batch: Batch) -> float:
        """Compute the loss of a batch, in evaluation mode, as the Trainer does."""
        self.model.eval()
        with torch.no_grad():
            loss = self.trainer.compute_loss(self.model, arguments(self.model, batch))
        self.model.train()
        return float(loss)


@torch.no_grad()
def loss_here(task: Task, batch: Batch) -> float:
    """Compute the loss here of a batch alone, in evaluation mode."""
    task.model.eval()
    counts = {name: (batch[labels] != IGNORED).sum() for name, labels in TARGETS.items() if labels in batch}
    parts = task.losses(batch, counts)
    task.model.train()
    return float(torch.stack(list(parts.values())).sum())


class HuggingFaceDecoding:
    """Decode by ``generate`` with its cache, on the weights and in the type of the task."""

    def __init__(self, task: Task) -> None:
        dtype = next(task.model.parameters()).dtype
        self.model: Any = counterpart(task).to(dtype).eval()
        self.about = {"program": f"transformers {version('transformers')}, generate", **about_network(self.model)}

    def decode(self, batch: Batch, search: Search) -> list[list[int]]:
        """Return token ids without start, prompt and end token."""
        settings: dict[str, Any] = {"do_sample": False, "num_beams": search.beam, "max_new_tokens": search.max_len}
        if search.beam > 1:
            settings |= {"early_stopping": "never", "length_penalty": search.alpha}
        found = self.model.generate(batch["input_ids"], attention_mask=batch["attention_mask"], **settings)
        start = 1 if self.model.config.is_encoder_decoder else batch["input_ids"].shape[1]
        rows = found[:, start:].tolist()
        return [row[: row.index(search.end_id)] if search.end_id in row else row for row in rows]
