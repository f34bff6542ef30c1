"""Pipeline parallelism: a network cut into stages, one or more a process, that work on micro-batches in turn."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.utilities.optimizer import _optimizers_to_device
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B
from torch.optim import Optimizer

from src.distributed.collectives import gather_objects, gather_to_first
from src.distributed.materialize import materialize
from src.distributed.saving import checked, save_shards
from src.distributed.shards import group_names, load_file, load_shards, named_state, numbered_state
from src.distributed.stages import Batch, ScheduledLoss, cost, keep, n_parameters, partition, split, steps_of
from src.errors import InputError
from src.models.network import run
from src.optim import parameter_groups

State = tuple[Tensor, ...]


class _Stage(nn.Module):
    """Consecutive steps, as the schedule calls them: with the number of a micro-batch, and the state before them."""

    def __init__(self, strategy: "PipelineStrategy", k: int) -> None:
        super().__init__()
        self.strategy, self.k = strategy, k

    def forward(self, *state: Tensor, number: Tensor) -> State | Tensor:
        return self.strategy.run_micro_batch(self.k, int(number), () if self.k == 0 else state)


class PipelineStrategy(DDPStrategy):
    """Cut the network into stages, and the batch into micro-batches that go through them one behind the other.

    Processes / ``pipeline_size`` pipelines are data parallel. A matrix that several stages use, as a tied embedding,
    is on each of them, and its gradients are summed over them. All processes of a pipeline read the same rows.

    Args:
        pipeline_size: processes of a pipeline; all of them if None.
        micro_batches: parts of a batch. A process waits for (p - 1) / (m + p - 1) of the time, with p processes and m
            micro-batches; with one micro-batch this is plain model parallelism, one process working at a time.
        schedule: ``GPipe`` runs all forward and then all backward passes (Huang et al. 2019); ``1F1B`` one of each in
            turn, with as many micro-batches in memory as there are stages (Narayanan et al. 2019); ``Interleaved1F1B``
            with several stages a process and so shorter waits (Narayanan et al. 2021).
        stages_per_process: more than one with ``Interleaved1F1B`` only.
        save_distributed_checkpoint: a folder to which each process writes its stages; else one file, as without this
            strategy.
        process_group_backend: ``gloo`` on CPUs and ``nccl`` on GPUs if None.
    """

    restore_checkpoint_after_setup = True  # before, the network is on the meta device
    lightning_restore_optimizer = False  # `load_checkpoint` does it
    is_sharded = True  # a process holds parts of the weights only
    builds_on_meta = True

    def __init__(
        self,
        pipeline_size: int | None = None,
        micro_batches: int = 4,
        schedule: Literal["GPipe", "1F1B", "Interleaved1F1B"] = "1F1B",
        stages_per_process: int = 1,
        save_distributed_checkpoint: bool = False,
        process_group_backend: str | None = None,
    ) -> None:
        super().__init__(process_group_backend=process_group_backend)
        self.pipeline_size, self.micro_batches = pipeline_size, micro_batches
        self.schedule_name, self.stages_per_process = schedule, stages_per_process
        self.save_distributed_checkpoint = save_distributed_checkpoint
        self._cut: list[range] | None = None
        self._scheduled: tuple[tuple[torch.Size, ...], Any] | None = None

    # ---- setting up

    def check(self, trainer: L.Trainer, task: Any) -> None:
        """Refuse what cannot work, before any process is started."""
        size = self.pipeline_size or trainer.world_size
        n_stages = size * self.stages_per_process
        if size < 1 or trainer.world_size % size:
            raise InputError(f"{trainer.world_size} processes cannot be divided into pipelines of {size}")
        if self.micro_batches < 1 or self.stages_per_process < 1:
            raise InputError("micro_batches and stages_per_process must be at least 1")
        if (self.stages_per_process > 1) != (self.schedule_name == "Interleaved1F1B"):
            raise InputError(f"stages_per_process is {self.stages_per_process}: more than 1 goes with Interleaved1F1B")
        if self.schedule_name != "GPipe" and self.micro_batches < size:
            raise InputError(
                f"micro_batches {self.micro_batches} is less than the {size} processes of a pipeline, which "
                f"{self.schedule_name} cannot fill: take more, or the schedule GPipe"
            )
        if self.schedule_name == "Interleaved1F1B" and self.micro_batches % size:
            raise InputError(f"Interleaved1F1B needs micro_batches divisible by {size}, not {self.micro_batches}")
        if task.in_batch_negatives and self.micro_batches > 1:
            raise InputError(
                f"{type(task).__name__} compares all rows of a batch with each other, so that it cannot be cut: set "
                "micro_batches to 1 and schedule to GPipe"
            )
        with torch.device("meta"):
            n_steps = len(steps_of(task.build_model()))
        if n_stages > n_steps:
            raise InputError(f"the network has {n_steps} layers, too few for {n_stages} stages")

    def setup_environment(self) -> None:
        super().setup_environment()
        size = self.pipeline_size or self.world_size
        shape = (self.world_size // size, size)
        self.mesh = init_device_mesh(self.root_device.type, shape, mesh_dim_names=("dp", "pp"))
        self.group, self.replicas = self.mesh["pp"].get_group(), self.mesh["dp"].get_group()
        self.size, self.pipeline_rank = size, self.mesh["pp"].get_local_rank()
        self.n_stages = size * self.stages_per_process
        self._writers = dist.new_group(backend="gloo") if self.save_distributed_checkpoint else None

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        return {"num_replicas": self.mesh["dp"].size(), "rank": self.mesh["dp"].get_local_rank()}

    @property
    def task(self) -> Any:
        """The LightningModule."""
        return self.lightning_module

    def setup(self, trainer: L.Trainer) -> None:
        assert self.accelerator is not None
        if trainer.state.fn == TrainerFn.PREDICTING:
            raise InputError("predict needs the whole network in each process: leave the pipeline out")
        self.accelerator.setup(trainer)
        if self._cut is None:
            self._cut_network()
        self.model = self.precision_plugin.convert_module(self.task)
        self.model_to_device()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        if trainer.state.fn == TrainerFn.FITTING:
            _optimizers_to_device(self.optimizers, self.root_device)

    def _cut_network(self) -> None:
        model = self.task.model
        names = {id(p): name for name, p in self.task.named_parameters()}
        # of the whole network: what a checkpoint is ordered by
        self._groups = [[names[id(p)] for p in group["params"]] for group in parameter_groups(model)]
        self._keys = list(self.task.state_dict())
        steps = steps_of(model)
        costs, sizes = [cost(step) for step in steps], [n_parameters(step) for step in steps]
        self._cut = partition(costs, self.n_stages, sizes)
        self._mine = [k for k in range(self.n_stages) if k % self.size == self.pipeline_rank]
        keep(model, [steps[i] for k in self._mine for i in self._cut[k]])
        with self.precision_plugin.module_init_context():
            materialize(model, self.task.build_model, self.task.initial_model, self.root_device)
        self._share()

    def _share(self) -> None:
        """Make groups of the processes that hold the same parameter: every process makes the same ones."""
        mine = [name for name, _ in self.task.named_parameters()]
        held = gather_objects((self.mesh["dp"].get_local_rank(), mine))
        self._shared: dict[str, Any] = {}
        self._counted_elsewhere = set()
        for pipeline in range(self.mesh["dp"].size()):
            for name in [name for group in self._groups for name in group]:
                holders = [rank for rank, (i, names) in enumerate(held) if i == pipeline and name in names]
                if len(holders) > 1:
                    group = dist.new_group(holders)
                    if self.global_rank in holders:
                        self._shared[name] = group
                        if self.global_rank != holders[0]:
                            self._counted_elsewhere.add(name)

    # ---- running

    def _run_stage(self, k: int, state: State, arguments: dict[str, Any]) -> Any:
        """Compute the state after a stage; after the last one, the network's output."""
        assert self._cut is not None
        steps = self.task.model.steps(**arguments)
        return run(steps[self._cut[k].start : self._cut[k].stop], *state)

    def _empty(self, k: int, arguments: dict[str, Any], device: torch.device | str) -> State:
        """Make room for the state after a stage. Under mixed precision the residual stream is kept in float32."""
        assert self._cut is not None
        shapes = self.task.model.steps(**arguments)[self._cut[k].stop - 1].shapes
        dtype, d_model = next(self.task.model.parameters()).dtype, self.task.config.d_model
        whole = [shape if len(shape) > 2 else (*shape, d_model) for shape in shapes]
        return tuple(torch.empty(*shape, dtype=dtype, device=device) for shape in whole)

    def _arguments(self, micro_batch: Batch) -> dict[str, Any]:
        return {**self.task.inputs(micro_batch), **self.task.targets(micro_batch)}

    def run_micro_batch(self, k: int, number: int, state: State) -> State | Tensor:
        """Compute the state after a stage; after the last one the loss, 0-dim, whose parts are kept."""
        micro_batch = self._parts[number]
        found = self._run_stage(k, state, self._arguments(micro_batch))
        if k < self.n_stages - 1:
            return found
        parts = self.task.mean_losses(found, micro_batch, self._counts)
        values = torch.stack(list(parts.values()))
        self._losses.append(values.detach())
        return values.sum()

    def losses(self, batch: Batch, counts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute the parts of the loss on every process of the pipeline; their backward gives all gradients."""
        self._parts, self._counts = split(batch, self.micro_batches), counts
        self._losses: list[Tensor] = []
        parameters = [p for p in self.task.model.parameters() if p.requires_grad]
        held = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None
        numbers = torch.arange(self.micro_batches)
        inputs, target = (
            [numbers] if self.pipeline_rank == 0 else [],
            numbers if self.pipeline_rank == self.size - 1 else None,
        )
        self._schedule().step(*inputs, number=numbers, target=target, return_outputs=False)
        gradients = [p.grad for p in parameters]
        for p, gradient in zip(parameters, held, strict=True):
            p.grad = gradient
        self._sum_gradients(gradients)
        first_part, *others = self._broadcast_losses()
        values = [ScheduledLoss.apply(first_part, gradients, *parameters), *others]
        return dict(zip(self.task.averaged_over, values, strict=True))

    def _schedule(self) -> Any:
        """Take a schedule for batches of this shape: its stages have room for no other."""
        arguments = self._arguments(self._parts[0])
        shapes = tuple(value.shape for value in arguments.values() if isinstance(value, Tensor))
        if self._scheduled is None or self._scheduled[0] != shapes:
            stages = [self._pipeline_stage(k, arguments) for k in self._mine]
            options = {"loss_fn": lambda loss, _: loss, "scale_grads": False}
            if self.schedule_name == "Interleaved1F1B":
                schedule: Any = ScheduleInterleaved1F1B(stages, self.micro_batches, **options)  # type: ignore[arg-type]
            else:
                kind = {"GPipe": ScheduleGPipe, "1F1B": Schedule1F1B}[self.schedule_name]
                schedule = kind(stages[0], self.micro_batches, **options)  # type: ignore[arg-type]
            self._scheduled = shapes, schedule
        return self._scheduled[1]

    def _pipeline_stage(self, k: int, arguments: dict[str, Any]) -> PipelineStage:
        before = self._empty(k - 1, arguments, "meta") if k else (torch.empty(1, dtype=torch.long, device="meta"),)
        after = self._empty(k, arguments, "meta") if k < self.n_stages - 1 else (torch.empty((), device="meta"),)
        before = tuple(tensor.requires_grad_(k > 0) for tensor in before)
        after = tuple(tensor.requires_grad_() for tensor in after)
        return PipelineStage(_Stage(self, k), k, self.n_stages, self.root_device, before, after, group=self.group)

    def _sum_gradients(self, gradients: list[Tensor | None]) -> None:
        """Sum over the stages that share a parameter, and average over the pipelines."""
        names = [name for name, p in self.task.named_parameters() if p.requires_grad]
        for name, gradient in zip(names, gradients, strict=True):
            if name in self._shared and gradient is not None:
                dist.all_reduce(gradient, group=self._shared[name])
        found = [gradient for gradient in gradients if gradient is not None]
        if self.mesh["dp"].size() > 1:
            flat = _flatten_dense_tensors(found)
            dist.all_reduce(flat, group=self.replicas)
            flat /= self.mesh["dp"].size()
            torch._foreach_copy_(found, list(_unflatten_dense_tensors(flat, found)))

    def _broadcast_losses(self) -> list[Tensor]:
        """Send the parts of the loss from the last stage to all."""
        values = torch.zeros(len(self.task.averaged_over), device=self.root_device)
        if self._losses:
            values = torch.stack(self._losses).sum(0).float()
        dist.broadcast(values, dist.get_global_rank(self.group, self.size - 1), group=self.group)
        return list(values.unbind())

    def outputs(self, arguments: dict[str, Any]) -> Any:
        """Run the network, in evaluation: its output on the last process of the pipeline, and None on others."""
        found: Any = ()
        for k in self._mine:
            state = found if isinstance(found, tuple) else (found,)
            if k and self.size > 1:
                state = self._empty(k - 1, arguments, self.root_device)
                for tensor in state:
                    dist.recv(tensor, dist.get_global_rank(self.group, (k - 1) % self.size), group=self.group)
            found = self._run_stage(k, state, arguments)
            if k < self.n_stages - 1 and self.size > 1:
                for tensor in found if isinstance(found, tuple) else (found,):
                    following = dist.get_global_rank(self.group, (k + 1) % self.size)
                    dist.send(tensor.contiguous(), following, group=self.group)
        return found if self.n_stages - 1 in self._mine else None

    def clip_gradients(self, parameters: Any, max_norm: float | None) -> Tensor:
        """Clip by the norm over all stages, in which a shared parameter counts once. Returns it."""
        named = [(name, p.grad) for name, p in self.task.named_parameters() if p.grad is not None]
        counted = [gradient for name, gradient in named if name not in self._counted_elsewhere]
        norms = torch.stack([gradient.float().pow(2).sum() for gradient in counted]).sum()
        dist.all_reduce(norms, group=self.group)
        norm = norms.sqrt()
        if max_norm:
            scale = (max_norm / (norm + 1e-6)).clamp(max=1.0).where(norm.isfinite(), torch.ones_like(norm))
            torch._foreach_mul_([gradient for _, gradient in named], scale)
        return norm

    # ---- checkpoints: one file by the first process, as without this strategy, or a folder by all

    def lightning_module_state_dict(self) -> dict[str, Any]:
        if self.save_distributed_checkpoint:
            state: dict[str, Any] = self.task.state_dict()
            return state
        return self._gathered()

    def _gathered(self) -> dict[str, Tensor]:
        """Gather the state on the first process of the pipeline, in the CPU's memory; the others get nothing."""
        mine = {name: tensor.cpu() for name, tensor in self.task.state_dict().items()}
        found = {name: tensor for part in gather_to_first(mine, self.group) for name, tensor in part.items()}
        return {name: found[name] for name in self._keys if name in found}

    def full_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Gather the weights of the network by name, on the first process of the pipeline; all must call this."""
        prefix = "model."
        return ((name.removeprefix(prefix), w) for name, w in self._gathered().items() if name.startswith(prefix))

    def optimizer_state(self, optimizer: Optimizer) -> Any:
        optimizer = getattr(optimizer, "_optimizer", optimizer)  # Lightning's is around it
        mine = named_state(optimizer.state_dict(), group_names(self.task, optimizer))
        if self.save_distributed_checkpoint:
            return mine
        states: dict[str, Any] = {}
        settings: dict[str, Any] = {}
        for found, groups in gather_to_first(mine, self.group):
            states |= found
            settings |= groups
        return numbered_state(states, settings, self._groups) if settings else {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        if self.save_distributed_checkpoint:
            save_shards(checkpoint, Path(self.broadcast(filepath)), self.checkpoint_io, self._writers)
        else:
            super().save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        path = checked(checkpoint_path)
        if path.is_dir():
            return load_shards(path, self.task, self.optimizers)
        return load_file(path, self.task, self.optimizers, self._groups)

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        """Do nothing: :meth:`load_checkpoint` has loaded the stages, and the optimizer's state too."""
