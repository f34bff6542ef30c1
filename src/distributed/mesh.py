"""Fully sharded data parallelism (FSDP2), context and tensor parallelism on one mesh of processes."""

import atexit
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.utilities.device_dtype_mixin import _update_properties
from lightning.fabric.utilities.distributed import _destroy_dist_connection
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_module
from torch.distributed.tensor.parallel import ParallelStyle, parallelize_module
from torch.optim import Optimizer
from torchmetrics import Metric

from src.checkpoint import read_header
from src.distributed.materialize import materialize
from src.distributed.plans import check_context_parallel, check_tensor_parallel, tensor_plan
from src.distributed.saving import checked, save_shards
from src.distributed.shards import OPTIMIZERS, group_names, load_file, load_shards, named_state
from src.errors import InputError
from src.nn import Block, CrossAttention, SelfAttention, TokenShards

# of a mesh of processes, by the names of the options that give their sizes; neighbours are along the last one
DIMENSIONS = ("pipeline", "data_parallel", "context_parallel", "tensor_parallel")


class MeshStrategy(ModelParallelStrategy):
    """Shard parameters, gradients and optimizer state over one dimension of processes, and cut matrices over another.

    Along the data-parallel dimension each process has other rows and a shard of every parameter, which is gathered for
    as long as a block computes (FSDP2; Zhao et al. 2023). Along the tensor-parallel dimension the processes have the
    same rows, and each computes with its heads and its columns (Shoeybi et al. 2019). Along the context-parallel
    dimension they have the same rows too, each computes with its part of the tokens (Jacobs et al. 2023), and the
    parameters are sharded over it as over the data-parallel one.

    The network is built on the meta device, cut, and then given its initial weights, one parameter at a time.

    Args:
        data_parallel_size: processes along the first dimension; ``auto`` is all that the second leaves.
        tensor_parallel_size: processes along the second; ``auto`` is all of them.
        context_parallel_size: processes along the third, between the two, for rows too long for one device.
        replicate_size: groups that the processes along the first dimension are divided into, neighbours together. Each
            of them has all shards, and gradients are summed over the groups (HSDP): parameters are gathered within a
            machine alone if a group is a machine.
        save_distributed_checkpoint: a folder to which each process writes its shard, for models that fit no single
            memory (the verb ``consolidate`` makes a file of it); else one file, as without this strategy.
        reshard_after_forward: free the gathered parameters after the forward pass and gather them again for the
            backward one: less memory, more communication.
        sync_each_batch: reduce and shard the gradients of every accumulated batch: the least memory. Else once an
            optimizer step, before which each process holds all of them: less communication.
        cpu_offload: keep shards and optimizer state in the CPU's memory, and step the optimizer there.
        process_group_backend: ``gloo`` on CPUs and ``nccl`` on GPUs if None.
    """

    is_sharded = True  # a process holds parts of the weights only
    builds_on_meta = True

    def __init__(
        self,
        data_parallel_size: Literal["auto"] | int = "auto",
        tensor_parallel_size: Literal["auto"] | int = 1,
        replicate_size: int = 1,
        context_parallel_size: int = 1,
        save_distributed_checkpoint: bool = False,
        reshard_after_forward: bool = True,
        sync_each_batch: bool = False,
        cpu_offload: bool = False,
        process_group_backend: str | None = None,
    ) -> None:
        super().__init__(data_parallel_size, tensor_parallel_size, save_distributed_checkpoint, process_group_backend)
        self.reshard_after_forward, self.sync_each_batch = reshard_after_forward, sync_each_batch
        self.cpu_offload, self.replicate_size = cpu_offload, replicate_size
        self.data_parallel_size, self.context_parallel_size = data_parallel_size, context_parallel_size
        self._sharded = False
        self._rows: Any = None  # the mesh, of which one dimension is that of processes with rows of their own
        self._groups: list[list[str]] | None = None  # of the whole network's parameters, where a process has a part

    @property
    def replicas(self) -> Any:
        """The group of processes that have rows of their own."""
        return self._rows["data_parallel"].get_group()

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        rows = self._rows["data_parallel"]
        return {"num_replicas": rows.size(), "rank": rows.get_local_rank()}

    @property
    def _asked(self) -> dict[str, Any]:
        """The sizes as they are configured, in the order in which an ``auto`` takes all that is left."""
        context = {} if self.context_parallel_size == 1 else {"context_parallel": self.context_parallel_size}
        return {"tensor_parallel": self._tensor_parallel_size, "data_parallel": self.data_parallel_size, **context}

    def sizes(self, world_size: int) -> dict[str, int]:
        """Count the processes along each dimension."""
        found = self._asked
        for name, size in found.items():
            if size != "auto" and size < 1:
                raise InputError(f"{name}_size is {size}: it must be at least 1")
        for name in [name for name, size in found.items() if size == "auto"]:
            given = math.prod(size for size in found.values() if size != "auto")
            found[name] = max(1, world_size // given)
        found = {name: found[name] for name in DIMENSIONS if name in found}
        if math.prod(found.values()) != world_size:
            sizes = " x ".join(f"{name}_size {size}" for name, size in found.items())
            raise InputError(f"{sizes} is not the number of processes, {world_size}: change one of them")
        if self.replicate_size < 1 or found["data_parallel"] % self.replicate_size:
            raise InputError(
                f"replicate_size is {self.replicate_size}: it must divide the {found['data_parallel']} data-parallel "
                "processes"
            )
        return found

    def check(self, trainer: L.Trainer, task: Any) -> None:
        """Refuse what cannot work, before any process is started."""
        sizes = self.sizes(trainer.world_size)
        context, tensor = sizes.get("context_parallel", 1), sizes["tensor_parallel"]
        if context * tensor > 1:
            model = task.meta_model()
            if tensor > 1:
                check_tensor_parallel(model, tensor)
            if context > 1:
                check_context_parallel(model, context, tensor)

    def setup_environment(self) -> None:
        sizes = self.sizes(self.num_nodes * self.num_processes)
        self._setup_distributed()
        kind, shape = self.root_device.type, dict(sizes)
        # of that by which parameters are cut one dimension is that of processes with tokens of their own
        context = shape.pop("context_parallel", 1)
        shape["data_parallel"] *= context
        self._rows = self._device_mesh = init_device_mesh(kind, tuple(shape.values()), mesh_dim_names=tuple(shape))
        if context > 1:
            self._rows = init_device_mesh(kind, tuple(sizes.values()), mesh_dim_names=tuple(sizes))
        self.lightning_module._device_mesh = self._device_mesh  # type: ignore[union-attr]
        atexit.register(_destroy_dist_connection)
        self._writers = dist.new_group(backend="gloo") if self._save_distributed_checkpoint else None

    def setup(self, trainer: L.Trainer) -> None:
        if not self._sharded:  # a run that fits and then validates is set up twice
            self._sharded = True
            task: Any = self.lightning_module
            self._shard(task.model)
            with self.precision_plugin.module_init_context():
                device = torch.device("cpu") if self.cpu_offload else self.root_device
                materialize(task.model, task.build_model, task.initial_model, device)
        evaluations = (trainer.fit_loop.epoch_loop.val_loop, trainer.validate_loop, trainer.test_loop)
        for loop in (*evaluations, trainer.predict_loop):
            loop.inference_mode = False  # FSDP could not train with what it has gathered in it
        super().setup(trainer)

    def _shard(self, model: nn.Module) -> None:
        mesh, over = self.device_mesh, ["data_parallel"]
        *outer, data, tensor = mesh.shape
        if self.replicate_size > 1:
            shape, over = (*outer, self.replicate_size, data // self.replicate_size, tensor), ["replicate", "shard"]
            names = (*DIMENSIONS[: len(outer)], *over, "tensor_parallel")
            mesh = init_device_mesh(mesh.device_type, shape, mesh_dim_names=names)
        if tensor > 1:
            parallelize(model, mesh["tensor_parallel"])
        if self.context_parallel_size > 1:
            model.shard_tokens(TokenShards(self._rows["context_parallel"].get_group()))  # type: ignore[operator]
        if data > 1 or mesh.size() == 1:
            settings: dict[str, Any] = {
                "mesh": mesh[tuple(over)],
                "reshard_after_forward": self.reshard_after_forward,
                "mp_policy": self._mixed_precision(),
                "offload_policy": CPUOffloadPolicy() if self.cpu_offload else OffloadPolicy(),
            }
            for block in [module for module in model.modules() if isinstance(module, Block)]:
                fully_shard(block, **settings)
            # what the blocks leave, of which the output layer is the first that the backward pass needs
            fully_shard(model, **{**settings, "reshard_after_forward": False})

    def _mixed_precision(self) -> MixedPrecisionPolicy:
        """Under mixed precision: parameters gathered in bfloat16, half the traffic, and gradients summed in float32."""
        if str(self.precision_plugin.precision) != "bf16-mixed":
            return MixedPrecisionPolicy()
        return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)

    def _get_process_group_backend(self) -> str:
        backend = super()._get_process_group_backend()
        if not self.cpu_offload or self.root_device.type == "cpu" or ":" in backend:
            return backend
        # the norm of offloaded gradients is summed where they lie, which nccl does not do
        return f"cpu:gloo,{self.root_device.type}:{backend}"

    def model_to_device(self) -> None:
        if not self.cpu_offload:
            super().model_to_device()
            return
        # all but the parameters, which FSDP copies as it gathers them: tables and metrics meet what is computed there
        task = self.lightning_module
        assert task is not None
        for module in task.modules():
            if isinstance(module, Metric):
                module.to(self.root_device)
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(self.root_device))
        _update_properties(task, device=self.root_device)

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Let gradients accumulate before they are reduced, until the last batch of an optimizer step."""
        model = self.lightning_module.model  # type: ignore[union-attr]
        if self.sync_each_batch or not isinstance(model, FSDPModule):
            yield
            return
        model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)

    # ---- checkpoints: one file by the first process, or a folder by all

    def lightning_module_state_dict(self) -> dict[str, Any]:
        if not self._save_distributed_checkpoint:
            return super().lightning_module_state_dict()
        return self.lightning_module.state_dict()  # type: ignore[union-attr]

    def optimizer_state(self, optimizer: Optimizer) -> Any:
        if not self._save_distributed_checkpoint:
            return super().optimizer_state(optimizer)
        return self._named_state(optimizer)

    def _named_state(self, optimizer: Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
        optimizer = getattr(optimizer, "_optimizer", optimizer)  # Lightning's is around it
        return named_state(optimizer.state_dict(), group_names(self.lightning_module, optimizer))  # type: ignore[arg-type]

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        if not self._save_distributed_checkpoint:
            super().save_checkpoint(checkpoint, filepath, storage_options)
            return
        save_shards(checkpoint, Path(self.broadcast(filepath)), self.checkpoint_io, self._writers)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        path = checked(checkpoint_path)
        if not path.is_dir():
            return load_file(path, self.lightning_module, self.optimizers, self._groups)
        if OPTIMIZERS not in read_header(path):  # as Lightning wrote it, until this project did
            return super().load_checkpoint(path, weights_only)
        return load_shards(path, self.lightning_module, self.optimizers)  # type: ignore[arg-type]

    def teardown(self) -> None:
        self.checkpoint_io.teardown()
        super().teardown()

    def full_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Gather the weights of the network by name, one at a time; every rank must take all of them."""
        for name, weight in self.lightning_module.model.state_dict().items():  # type: ignore[union-attr, union-attr]
            weight = weight.to(self.root_device)  # with cpu_offload
            yield name, weight.full_tensor() if isinstance(weight, DTensor) else weight


class _Replicated(ParallelStyle):
    """Parameters replicated on every rank, as DTensors like the others: fused optimizers take no mix."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def enter(_: nn.Module, inputs: tuple[Any, ...], mesh: DeviceMesh) -> tuple[Any, ...]:
            return tuple(
                DTensor.from_local(x, mesh, (Replicate(),), run_check=False) if isinstance(x, Tensor) else x
                for x in inputs
            )

        def leave(_: nn.Module, output: Any, mesh: DeviceMesh) -> Any:
            return output.to_local() if isinstance(output, DTensor) else output

        return distribute_module(module, device_mesh, None, enter, leave)  # type: ignore[arg-type]


def parallelize(model: nn.Module, mesh: DeviceMesh) -> None:
    """Cut a network over the ranks of a mesh by its plan, keeping tied parameters tied."""
    tied = _tied(model)
    plan = tensor_plan(model)
    modules = dict(model.named_modules())
    rest = {name: _Replicated() for name, m in modules.items() if name not in plan and list(m.parameters(False))}
    parallelize_module(model, mesh, {**plan, **rest})
    for (first, name), *others in tied:  # each of them was made a parameter of its own
        for module, other in others:
            setattr(module, other, getattr(first, name))
    for module in modules.values():
        if isinstance(module, SelfAttention):
            module.shard_heads(mesh.get_local_rank(), mesh.size())
        if isinstance(module, SelfAttention | CrossAttention):
            _draw_apart(module, mesh)


def _draw_apart(module: SelfAttention | CrossAttention, mesh: DeviceMesh) -> None:
    """Let the heads of each rank drop weights of their own, and all ranks go on from the same random state."""
    devices = [torch.cuda.current_device()] if mesh.device_type == "cuda" else []
    forks: list[AbstractContextManager[None]] = []

    def enter(*_: Any) -> None:
        if module.training and module.dropout:
            seed = int(torch.randint(1 << 62, ()))  # the same on each
            forks.append(torch.random.fork_rng(devices))
            forks[-1].__enter__()
            torch.manual_seed(seed + mesh.get_local_rank())

    def leave(*_: Any) -> None:
        if forks:
            forks.pop().__exit__(None, None, None)

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave)


def _tied(model: nn.Module) -> list[list[tuple[nn.Module, str]]]:
    """List the groups of (module, attribute) that share a parameter."""
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append((module, name))
    return [group for group in owners.values() if len(group) > 1]
