"""Callbacks for tests: a process that dies, the bytes it holds, what it drops, and a clock that is exact."""

import json
import math
import os
import re
import signal
from collections import Counter
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from src.callbacks import throughput
from src.distributed import unsharded_model
from src.nn import Block, Dropout, SelfAttention, cross_entropy


class Kill(L.Callback):
    """SIGKILL one process before a step."""

    def __init__(self, rank: int, step: int) -> None:
        self.rank, self.step = rank, step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_rank == self.rank and trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class KillWhileSaving(L.Callback):
    """SIGKILL one process after a step, while a checkpoint is being written to a folder."""

    def __init__(self, folder: str, rank: int, step: int) -> None:
        self.folder, self.rank, self.step = Path(folder), rank, step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if (trainer.global_rank, trainer.global_step) == (self.rank, self.step):
            while not any(self.folder.glob("*.part")):
                pass
            os.kill(os.getpid(), signal.SIGKILL)


def held(tensors: Iterable[Tensor | None]) -> int:
    """The bytes of the local parts of tensors."""
    total = 0
    for tensor in tensors:
        if tensor is not None:
            local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
            total += local.numel() * local.element_size()
    return total


class Bytes(L.Callback):
    """Write the bytes of parameters, gradients and optimizer state of each process to ``FOLDER/RANK.json``."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.found: dict[str, int] = {}

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        zero = trainer.optimizers[0]
        # what DeepSpeed keeps of the gradients, for the parameters whose state is on this rank
        kept = getattr(zero, "averaged_gradients", None) or {}
        kept = [t for group in (kept.values() if isinstance(kept, dict) else kept) for t in (group or [])]
        self.found["gradients"] = held(p.grad for p in pl_module.parameters()) + held(kept)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        zero = trainer.optimizers[0]
        inner = getattr(zero, "optimizer", zero)
        states = [t for state in inner.state.values() for t in state.values() if isinstance(t, Tensor) and t.dim()]
        # DeepSpeed's fp32 copy of the parameters whose state is on this rank
        master = getattr(zero, "single_partition_of_fp32_groups", None) or getattr(
            zero, "fp32_partitioned_groups_flat", []
        )
        self.found["parameters"] = held(getattr(p, "ds_tensor", p) for p in pl_module.parameters())
        self.found["optimizer"] = held(states) + held(master)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(self.found))
        torch.distributed.barrier()


class Construction(L.Callback):
    """Write how far the memory of each process grows while its network is built and cut, and end it.

    To ``FOLDER/RANK.json``, in bytes: the peak, its parameters in the end, and the largest block.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
        self.before = _status("VmRSS")

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        with torch.device("meta"):
            blocks = [m for m in pl_module.build_model().modules() if isinstance(m, Block)]
        found = {
            "peak": _status("VmHWM") - self.before,
            "shard": held(pl_module.parameters()),
            "block": max(held(block.parameters()) for block in blocks),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(found))
        os._exit(0)


def _status(name: str) -> int:
    """Bytes that the kernel counts of this process."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


class Gathered(L.Callback):
    """Write what a process holds of a network that is gathered on the first one, in bytes, to ``FOLDER/RANK.json``.

    Of the copy, and of the largest tensor meanwhile.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        model = unsharded_model(pl_module)
        largest = max((held([weight]) for _, weight in trainer.strategy.full_weights()), default=0)
        self.folder.mkdir(parents=True, exist_ok=True)
        found = {"copy": held(model.parameters()) if model else 0, "largest": largest}
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(found))


class Softmaxes(L.Callback):
    """Write the most rows that a step's log-softmaxes are of, by their classes, to ``FOLDER/RANK.json``.

    The loss is cut into pieces of 4 rows for it.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.rows: dict[int, int] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        cross_entropy.FEWEST_ROWS, cross_entropy.LOGITS = 4, {"cpu": 1}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        rows = self.rows

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if function is torch.ops.aten._log_softmax.default:
                    *batch, classes = args[0].shape
                    rows[classes] = max(rows.get(classes, 0), math.prod(batch))
                return function(*args, **(kwargs or {}))

        self._watch = Watch()
        self._watch.__enter__()

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        self._watch.__exit__(None, None, None)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(self.rows))


class Calls(TorchDispatchMode):
    """Count the calls of each collective by its name, those of gradients' hooks among them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if DTensor in types:  # so that what it sends is seen as well
            return NotImplemented
        name = function.overloadpacket.__name__
        sends = name not in ("wait_tensor", "_wrap_tensor_autograd")
        if function.namespace in ("c10d", "_c10d_functional") and sends:
            self.found[name] += 1
        return function(*args, **(kwargs or {}))


class Collectives(L.Callback):
    """Write how often each collective is called to ``FOLDER/RANK.json``: a list, from each batch's end to the next's.

    So with what the loader does for a batch; of the first batch, from its start.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.batches: list[Counter[str]] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if not self.batches:
            self._calls = Calls()
            self._calls.__enter__()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.batches.append(self._calls.found.copy())
        self._calls.found.clear()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._calls.__exit__(None, None, None)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(self.batches))


class Dropped(L.Callback):
    """Write what each process drops to ``FOLDER/RANK.pt``, by the name of the module, with its initial weights.

    Of attention it is what would be dropped of equal weights: (batch, heads, queries, keys).
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.found: dict[str, list[Tensor]] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.weights = {name: held_here(p).clone() for name, p in pl_module.model.named_parameters()}
        for name, module in pl_module.model.named_modules():
            if isinstance(module, Dropout):
                module.register_forward_hook(lambda m, i, output, name=name: self._keep(name, output == 0))
            elif isinstance(module, SelfAttention):
                module.kernel = self._watched(name, module.kernel)

    def _keep(self, name: str, dropped: Tensor) -> None:
        if torch.is_grad_enabled():
            self.found.setdefault(name, []).append(dropped)

    def _watched(self, name: str, kernel: Any) -> Any:
        def attend(q: Tensor, k: Tensor, v: Tensor, mask: Any, *more: Any) -> Tensor:
            length = q.shape[2]
            y = kernel(q * 0, k * 0, torch.eye(length).expand(*q.shape[:2], -1, -1), mask, *more)
            self._keep(name, (y == 0)[..., torch.ones(length, length).tril().bool()])
            return kernel(q, k, v, mask, *more)

        return attend

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        found = {name: torch.stack(dropped) for name, dropped in self.found.items()}
        torch.save({"dropped": found, "weights": self.weights}, self.folder / f"{trainer.global_rank}.pt")


def held_here(tensor: Tensor) -> Tensor:
    """The local part of a tensor."""
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local.detach()


class Clock(L.Callback):
    """Let a second pass from one look at the clock to the next, on a machine of 1 GFLOP/s."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        seconds = count()
        throughput.time = SimpleNamespace(perf_counter=lambda: next(seconds))
        throughput.matmul_peak = lambda *_: 1e9


class Batches(L.Callback):
    """Keep the ids of the batches that each process trains on in ``FOLDER/RANK.json``."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.ids: list[int] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, *_: Any) -> None:
        self.ids += batch["input_ids"].flatten().tolist()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(self.ids))
