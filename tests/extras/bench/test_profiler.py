"""The parts of a step sum to the step, and each moment is counted where it belongs."""

import mmap

import lightning as L
import pytest
import torch

from src.extras.bench import profiler as module
from src.extras.bench.profiler import PARTS, PeakMemory, StepProfiler, part_of

CPU = torch.device("cpu")


@pytest.fixture
def at(monkeypatch):
    """A clock that stands still until it is set."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return lambda time: now.__setitem__(0, time)


def test_a_moment_belongs_to_the_innermost_action(at):
    profiler = StepProfiler()
    profiler.start("run_training_epoch")
    profiler.begin(CPU)
    at(1)
    profiler.start("[LightningModule]GPTModule.optimizer_step")
    at(3)
    profiler.start("[Strategy]SingleDeviceStrategy.training_step")
    at(7)
    profiler.stop("[Strategy]SingleDeviceStrategy.training_step")
    at(8)
    profiler.start("[Callback]ProgressBar.on_train_batch_end")
    at(24)
    profiler.stop("[Callback]ProgressBar.on_train_batch_end")
    profiler.stop("[LightningModule]GPTModule.optimizer_step")
    at(56)
    assert profiler.end() == 56
    expected = dict.fromkeys(PARTS, 0.0) | {"lightning": 33, "optimizer": 3, "forward": 4, "logging": 16}
    assert profiler.seconds == expected
    at(99)
    profiler.stop("run_training_epoch")
    assert sum(profiler.seconds.values()) == 56


def test_an_exception_leaves_no_action_open(at):
    profiler = StepProfiler()
    profiler.begin(CPU)

    @profiler.profile("[Strategy]S.backward")
    def backward():
        profiler.start("[Callback]C.on_before_backward")
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        backward()
    at(5)
    profiler.end()
    assert profiler.seconds["lightning"] == 5


class Small(L.LightningModule):
    """A module that writes down under which action each of its methods runs."""

    def __init__(self, seen: dict[str, str], profiler: StepProfiler):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.seen, self.profiler_here = seen, profiler

    def _note(self, what):
        self.seen[what] = part_of(self.profiler_here._open[-1])

    def training_step(self, batch, batch_idx):
        self._note("training_step")
        loss = self.layer(batch).mean()
        loss.register_hook(lambda gradient: self._note("gradient"))
        return loss

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        self._note("transfer")
        return batch

    def configure_gradient_clipping(self, *args, **kwargs):
        self._note("clipping")

    def configure_optimizers(self):
        module, note = self, self._note

        class Noted(torch.optim.SGD):
            def step(self, closure=None):
                loss = closure()
                note("step")
                return loss

            def zero_grad(self, *args, **kwargs):
                note("zero_grad")
                super().zero_grad(*args, **kwargs)

        return Noted(module.parameters(), lr=0.1)


def test_lightning_calls_its_actions_what_the_table_says(tmp_path):
    seen: dict[str, str] = {}
    profiler = StepProfiler()

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            seen["row"] = part_of(profiler._open[-1])
            return torch.ones(2)

    class Noting(L.Callback):
        def on_train_batch_end(self, *args):
            seen["callback"] = part_of(profiler._open[-1])

    trainer = L.Trainer(
        max_steps=2,
        profiler=profiler,
        callbacks=[Noting()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        accelerator="cpu",
    )
    trainer.fit(Small(seen, profiler), torch.utils.data.DataLoader(Rows()))
    assert seen == {
        "row": "data",
        "transfer": "data",
        "training_step": "forward",
        "gradient": "backward",
        "zero_grad": "optimizer",
        "clipping": "optimizer",
        "step": "optimizer",
        "callback": "logging",
    }


def test_peak_memory_is_of_what_was_held_in_between():
    def held(mebibytes):
        memory = PeakMemory(CPU)
        before = memory.bytes()
        # not by the allocator, which may have as much at hand from tests before
        with mmap.mmap(-1, mebibytes << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
            for start in range(0, len(pages), mmap.PAGESIZE):
                pages[start] = 1
        return memory.bytes() - before

    assert held(256) > 200 << 20
    assert held(1) < 100 << 20  # what was before it is forgotten
