"""Pipeline parallelism: a network cut into stages, one or more a process, that work on micro-batches in turn."""

from collections.abc import Iterator
from typing import Any, Literal

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from src.distributed.collectives import gather_objects, gather_to_first, global_norm, local_part, scale_gradients
from src.distributed.mesh import MeshStrategy
from src.distributed.shards import numbered_state
from src.distributed.stages import Batch, ScheduledLoss, Stage, State, cut, keep, reduced_once, split, steps_of
from src.errors import InputError
from src.models.network import Network
from src.optim import parameter_groups


class PipelineStrategy(MeshStrategy):
    """Cut the network into stages, and the batch into micro-batches that go through them one behind the other.

    Each stage is on processes of its own, over which it is cut as a :class:`MeshStrategy` cuts the network: by FSDP
    over those that have other rows, and by tensor parallelism over those that have the same. So there are
    ``data_parallel_size`` x ``tensor_parallel_size`` pipelines. A matrix that several stages use, as a tied embedding,
    is on each of them, and its gradients are summed over them.

    Args:
        pipeline_size: processes of a pipeline; all that the next two leave if None.
        data_parallel_size: processes of a stage with rows of their own; ``auto`` is all that the others leave.
        tensor_parallel_size: processes of a stage that share its matrices.
        replicate_size: groups that the data-parallel processes of a stage are divided into, each of which has all
            shards (HSDP); as many as there are of them is plain data parallelism.
        micro_batches: parts of a batch. A process waits for (p - 1) / (m + p - 1) of the time, with p processes and m
            micro-batches; with one micro-batch this is plain model parallelism, one process working at a time.
        schedule: ``GPipe`` runs all forward and then all backward passes (Huang et al. 2019); ``1F1B`` one of each in
            turn, with as many micro-batches in memory as there are stages (Narayanan et al. 2019); ``Interleaved1F1B``
            with several stages a process and so shorter waits (Narayanan et al. 2021).
        stages_per_process: more than one with ``Interleaved1F1B`` only.
        reshard_after_forward: gather the parameters of a block for each micro-batch, and free them after its forward
            and after its backward pass. Else a stage is gathered once a batch, and stays until the last micro-batch.
            Gradients are reduced and sharded once a batch in either case.
        save_distributed_checkpoint: a folder to which each process writes its part; else one file, as without this
            strategy.
        process_group_backend: ``gloo`` on CPUs and ``nccl`` on GPUs if None.
    """

    def __init__(
        self,
        pipeline_size: int | None = None,
        data_parallel_size: Literal["auto"] | int = "auto",
        tensor_parallel_size: int = 1,
        replicate_size: int = 1,
        micro_batches: int = 4,
        schedule: Literal["GPipe", "1F1B", "Interleaved1F1B"] = "1F1B",
        stages_per_process: int = 1,
        reshard_after_forward: bool = False,
        save_distributed_checkpoint: bool = False,
        process_group_backend: str | None = None,
    ) -> None:
        super().__init__(
            data_parallel_size,
            tensor_parallel_size,
            replicate_size=replicate_size,
            save_distributed_checkpoint=save_distributed_checkpoint,
            reshard_after_forward=reshard_after_forward,
            sync_each_batch=True,
            process_group_backend=process_group_backend,
        )
        self.pipeline_size, self.micro_batches = pipeline_size, micro_batches
        self.schedule_name, self.stages_per_process = schedule, stages_per_process
        self._scheduled: tuple[tuple[torch.Size, ...], Any] | None = None

    # ---- setting up

    @property
    def _asked(self) -> dict[str, Any]:
        return {"pipeline": "auto" if self.pipeline_size is None else self.pipeline_size, **super()._asked}

    def check(self, trainer: L.Trainer, task: Any) -> None:
        """Refuse what cannot work, before any process is started."""
        super().check(trainer, task)
        size = self.sizes(trainer.world_size)["pipeline"]
        n_stages = size * self.stages_per_process
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
        n_steps = len(steps_of(task.meta_model()))
        if n_stages > n_steps:
            raise InputError(f"the network has {n_steps} layers, too few for {n_stages} stages")

    @property
    def group(self) -> Any:
        """The processes of this pipeline."""
        return self.device_mesh.get_group("pipeline")

    @property
    def task(self) -> Any:
        """The LightningModule."""
        return self.lightning_module

    def setup(self, trainer: L.Trainer) -> None:
        if trainer.state.fn == TrainerFn.PREDICTING:
            raise InputError("predict needs the whole network in each process: leave the pipeline out")
        is_whole = not self._sharded
        if is_whole:  # what a checkpoint is ordered by
            names = {id(p): name for name, p in self.task.named_parameters()}
            groups = parameter_groups(self.task.model, self.task.groups)
            self._groups = [[names[id(p)] for p in group["params"]] for group in groups]
            tensors = self.task.state_dict(keep_vars=True).items()
            self._keys = {name: names.get(id(tensor), name) for name, tensor in tensors}  # the first of those tied
        super().setup(trainer)
        if is_whole:
            self._share()

    def _shard(self, model: Network) -> None:  # type: ignore[override]
        self.size, _, self.tensor_size = self.device_mesh.shape
        self.pipeline_rank = self.device_mesh.get_local_rank("pipeline")
        self.n_stages = self.size * self.stages_per_process
        self._dtype = next(model.parameters()).dtype
        self._cut, steps = cut(model, self.n_stages), steps_of(model)
        self._mine = [k for k in range(self.n_stages) if k % self.size == self.pipeline_rank]
        keep(model, [steps[i] for k in self._mine for i in self._cut[k]])
        super()._shard(model)
        register_fsdp_forward_method(model, "forward_part")

    def _share(self) -> None:
        """Make groups of the processes that hold the same parameter, or shard: every process makes the same ones."""
        assert self._groups is not None
        mine = [name for name, _ in self.task.named_parameters()]
        held = gather_objects((self.device_mesh.get_coordinate()[1:], mine))  # type: ignore[index]
        self._shared: dict[str, Any] = {}
        self._counted_elsewhere = set()
        for place in sorted({tuple(place) for place, _ in held}):  # of each stage's mesh
            for name in [name for group in self._groups for name in group]:
                holders = [rank for rank, (at, names) in enumerate(held) if tuple(at) == place and name in names]
                if len(holders) > 1:
                    group = dist.new_group(holders)
                    if self.global_rank in holders:
                        self._shared[name] = group
                        if self.global_rank != holders[0]:
                            self._counted_elsewhere.add(name)

    # ---- running

    def _run_stage(self, k: int, state: State, arguments: dict[str, Any]) -> Any:
        """Compute the state after a stage, a tuple; after the last one, the network's output."""
        found = self.task.model.forward_part(self._cut[k], state, **arguments)
        if k == self.n_stages - 1:
            return found
        return tuple(tensor.to(self._dtype) for tensor in (found if isinstance(found, tuple) else (found,)))

    def _empty(self, k: int, arguments: dict[str, Any], device: torch.device | str) -> State:
        """Make room for the state after a stage. Under mixed precision it is sent in float32."""
        shapes = self.task.model.steps(**arguments)[self._cut[k].stop - 1].shapes
        whole = []
        for batch, length, *more in shapes:
            # of what has heads, (batch, heads, seq, width), a tensor-parallel rank has its own
            whole.append(
                (batch, length // self.tensor_size, *more) if more else (batch, length, self.task.config.d_model)
            )
        return tuple(torch.empty(*shape, dtype=self._dtype, device=device) for shape in whole)

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
        model = self.task.model
        for module in model.modules():
            if isinstance(module, FSDPModule):  # after an evaluation some are still gathered
                module.reshard()
        parameters = [p for p in model.parameters() if p.requires_grad]
        held = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None
        numbers = torch.arange(self.micro_batches)
        inputs, target = (
            [numbers] if self.pipeline_rank == 0 else [],
            numbers if self.pipeline_rank == self.size - 1 else None,
        )
        with reduced_once(model, self.reshard_after_forward):
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
        return PipelineStage(
            Stage(self.run_micro_batch, k), k, self.n_stages, self.root_device, before, after, group=self.group
        )

    @torch.no_grad()
    def _sum_gradients(self, gradients: list[Tensor | None]) -> None:
        """Sum over the stages that share a parameter."""
        named = [(name, p) for name, p in self.task.named_parameters() if p.requires_grad]
        for i, (name, parameter) in enumerate(named):
            gradient = gradients[i]
            if name in self._shared and gradient is not None:
                if isinstance(gradient, DTensor):  # that of an embedding is whole on each tensor-parallel rank
                    gradient = gradients[i] = gradient.redistribute(placements=parameter.placements)
                dist.all_reduce(local_part(gradient), group=self._shared[name])

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
            state = found
            if k and self.size > 1:
                state = self._empty(k - 1, arguments, self.root_device)
                for tensor in state:
                    dist.recv(tensor, dist.get_global_rank(self.group, (k - 1) % self.size), group=self.group)
            found = self._run_stage(k, state, arguments)
            if k < self.n_stages - 1 and self.size > 1:
                for tensor in found:
                    following = dist.get_global_rank(self.group, (k + 1) % self.size)
                    dist.send(tensor.contiguous(), following, group=self.group)
        return found if self.n_stages - 1 in self._mine else None

    def clip_gradients(self, parameters: Any, max_norm: float | None) -> Tensor:
        """Clip by the norm over all stages, in which a shared parameter counts once. Returns it."""
        named = [(name, p.grad) for name, p in self.task.named_parameters() if p.grad is not None]
        counted = [gradient for name, gradient in named if name not in self._counted_elsewhere]
        square = global_norm(counted, self.root_device).square()
        dist.all_reduce(square, group=self.group)
        norm = square.sqrt()
        scale_gradients([gradient for _, gradient in named], norm, max_norm)
        return norm

    # ---- checkpoints: one file by the first process, as without this strategy, or a folder by all

    def _gather(self, tree: Any, wanted: bool) -> list[Any]:
        """Gather what the stages hold, whole and in the CPU's memory, on the first process of a pipeline.

        All must call this; pipelines that do not want it, and other processes, get nothing.
        """

        def whole(tensor: Tensor) -> Tensor | None:
            tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            return tensor.cpu() if wanted else None

        found = gather_to_first(tree_map_only(Tensor, whole, tree), self.group)
        return found if wanted else []

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return super().lightning_module_state_dict() if self._save_distributed_checkpoint else self._state(self._writes)

    @property
    def _writes(self) -> bool:
        """Whether this pipeline is that of the first process, which writes files."""
        return not any(self.device_mesh.get_coordinate()[1:])  # type: ignore[index]

    def _state(self, wanted: bool) -> dict[str, Tensor]:
        mine = {name: tensor for name, tensor in self.task.state_dict().items() if self._keys[name] == name}
        found = {name: tensor for part in self._gather(mine, wanted) for name, tensor in part.items()}
        return {name: found[first] for name, first in self._keys.items() if first in found}

    def full_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Gather the weights of the network by name, on the first process of a pipeline; all must call this."""
        weights = self._state(wanted=self.device_mesh.get_local_rank("tensor_parallel") == 0)
        prefix = "model."
        return ((name.removeprefix(prefix), w) for name, w in weights.items() if name.startswith(prefix))

    def optimizer_state(self, optimizer: Optimizer) -> Any:
        if self._save_distributed_checkpoint:
            return super().optimizer_state(optimizer)
        states: dict[str, Any] = {}
        settings: dict[str, Any] = {}
        for found, groups in self._gather(self._named_state(optimizer), self._writes):
            states |= found
            settings |= groups
        return numbered_state(states, settings, self._groups or []) if settings else {}
