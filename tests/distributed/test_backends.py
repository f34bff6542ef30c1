"""What is reduced lies where the process group has a backend for it: nccl takes no tensor of a CPU.

Without a GPU, by torch's fake tensors: they have a device and no values.
"""

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed import Backend
from torch.distributed.distributed_c10d import BackendConfig

from src.callbacks import Throughput, throughput
from src.data import LMDataModule
from src.distributed import MeshStrategy, clip_by_global_norm
from src.models import GPTConfig
from src.optim import Constant
from src.tasks import GPTModule

GPU, META = torch.device("cuda", 0), torch.device("meta")


def gpt(**changes) -> GPTModule:
    config = GPTConfig(vocab_size=8, max_seq_len=8, d_model=8, n_heads=2, n_layers=1, **changes)
    return GPTModule(config, optimizer=torch.optim.AdamW, schedule=Constant())


class Nccl(SingleDeviceStrategy):
    """Reduces what lies on its device, and nothing else."""

    def reduce(self, tensor, *_, **__):
        assert tensor.device == self.root_device, f"No backend type associated with device type {tensor.device.type}"
        return tensor


class Trainer:
    """What is asked of a trainer at a step that is logged."""

    strategy, world_size = Nccl(GPU), 2
    accumulate_grad_batches = log_every_n_steps = global_step = 1
    precision, precision_plugin, callbacks = "32-true", None, ()


def test_figures_of_speed_are_reduced_on_the_device(monkeypatch):
    monkeypatch.setattr(throughput, "matmul_peak", lambda *_: 1e9)
    monkeypatch.setattr(throughput, "get_available_flops", lambda *_: 1e12)
    monkeypatch.setattr(throughput, "training_flops", lambda *_: 1e6)
    task, meter, logged = gpt(), Throughput(), {}
    monkeypatch.setattr(task, "log", lambda name, value, **_: logged.update({name: value.device}))
    with FakeTensorMode():
        meter.on_train_start(Trainer, task)
        meter.on_train_batch_end(Trainer, task, None, {"input_ids": torch.zeros(2, 8, device=GPU)}, 0)
    names = ("throughput/tokens_per_second", "throughput/hardware_utilisation", "throughput/mfu")
    assert logged == dict.fromkeys(names, GPU)


def test_counts_of_targets_are_reduced_on_the_device_and_stay_there():
    """To fetch them would wait for the GPU."""
    data = LMDataModule(source="text.txt")
    data.trainer = Trainer
    with FakeTensorMode():
        assert data._mean_over_ranks(torch.ones(2)).device == GPU


@pytest.mark.parametrize(("offload", "on_a_cpu"), [(True, "gloo"), (False, None)])
def test_offloaded_shards_have_a_backend(offload, on_a_cpu):
    """Their norm is summed where they lie."""
    strategy = MeshStrategy(cpu_offload=offload)
    strategy.parallel_devices = [GPU]
    name = strategy._get_process_group_backend()
    backends = BackendConfig(Backend(name)).device_backend_map
    assert backends["cuda"] == "nccl"
    if on_a_cpu:
        assert backends["cpu"] == on_a_cpu


def test_a_norm_of_no_gradients_lies_with_the_parameters():
    parameters = [nn.Parameter(torch.zeros(2, device=META))]
    assert clip_by_global_norm(parameters, 1.0).device == META


class MetaTrainer(Trainer):
    """Of a device that computes shapes alone, whose steps need no values either."""

    strategy = Nccl(META)


def test_figures_of_a_step_are_reduced_on_the_device(monkeypatch):
    logged = {}
    with META:
        task = gpt()
        monkeypatch.setattr(task, "log", lambda name, value, **_: logged.update({name: value}))
        task.trainer = MetaTrainer
        task.configure_model()
        task.to(META)
        task.model(torch.zeros(2, 8, dtype=torch.long)).sum().backward()
        task.collect("loss", torch.ones(()))
        task.configure_gradient_clipping(torch.optim.SGD(task.parameters(), lr=1.0), 1.0)
    assert logged["train/loss"].device == logged["train/gradient_norm"].device == META


def test_offloaded_are_the_parameters_alone():
    """Tables and metrics lie where the network computes."""
    task = gpt(positions="sinusoidal")
    task.configure_model()
    strategy = MeshStrategy(cpu_offload=True)
    strategy._lightning_module, strategy.parallel_devices = task, [META]
    strategy.model_to_device()
    assert {p.device.type for p in task.parameters()} == {"cpu"}
    assert {b.device.type for b in task.model.buffers()} == {"meta"}
    assert task.loss.mean_value.device == task.device == META
