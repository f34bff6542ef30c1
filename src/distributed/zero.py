"""DeepSpeed's ZeRO (Rajbhandari et al. 2020), on GPUs and, to try and to test it, on CPUs."""

import atexit
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.distributed import _destroy_dist_connection
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from src.checkpoint import AVERAGED, HEADER
from src.distributed.saving import atomic_folder, checked, plain_deepspeed
from src.errors import InputError, run_sh

# these look at matrices, or at all parameters together: ZeRO gives an optimizer flat partitions of them
NOT_ELEMENTWISE = ("Muon", "Adafactor", "LBFGS", "SparseAdam", "Shampoo", "SOAP")


class ZeroStrategy(DeepSpeedStrategy):
    """Shard the optimizer state (stage 1), the gradients too (2), and the parameters too (3) over the processes.

    Checkpoints are folders to which each process writes its part; the verb ``consolidate`` makes a file of one.

    Args:
        stage: 1, 2 or 3.
        offload_optimizer: keep the optimizer state in the CPU's memory, and step the optimizer there.
        offload_parameters: keep the parameters there too (stage 3).
        bucket_size: elements that are reduced or gathered at once.
        process_group_backend: ``gloo`` on CPUs and ``nccl`` on GPUs if None.
    """

    def __init__(
        self,
        stage: int = 2,
        offload_optimizer: bool = False,
        offload_parameters: bool = False,
        bucket_size: int = 20_000_000,
        process_group_backend: str | None = None,
    ) -> None:
        if stage not in (1, 2, 3):
            raise InputError(f"stage is {stage}: ZeRO has the stages 1, 2 and 3")
        if offload_parameters and stage != 3:
            raise InputError(f"offload_parameters needs stage 3, where parameters are sharded, not stage {stage}")
        if find_spec("deepspeed") is None:
            raise InputError(
                f"ZeRO needs DeepSpeed, which is not installed: EXTRAS=deepspeed {run_sh('fit')} installs it"
            )
        if not torch.cuda.is_available():  # else DeepSpeed guesses the accelerator, with a warning
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        super().__init__(
            stage=stage,
            offload_optimizer=offload_optimizer,
            offload_parameters=offload_parameters,
            reduce_bucket_size=bucket_size,
            allgather_bucket_size=bucket_size,
            process_group_backend=process_group_backend,
        )
        self.stage = stage

    def check(self, trainer: L.Trainer, task: Any) -> None:
        """Refuse what cannot work, before any process is started."""
        optimizer = task.make_optimizer([{"params": [nn.Parameter(torch.zeros(2, 2))]}])
        kind = type(optimizer).__name__
        if kind in NOT_ELEMENTWISE:
            raise InputError(
                f"{kind} works on whole matrices, and ZeRO gives it flat pieces of them: choose another optimizer, or "
                "another strategy"
            )
        if trainer.gradient_clip_algorithm == "value":
            raise InputError("ZeRO clips gradients by their norm only: set trainer.gradient_clip_algorithm to norm")

    # ---- on CPUs

    @property
    def root_device(self) -> torch.device:
        device = super().root_device
        # deepspeed is told its rank by the index of the device, and Lightning's CPUs have none
        return torch.device("cpu", self.local_rank) if device.type == "cpu" else device

    def setup_environment(self) -> None:
        if self.root_device.type != "cpu":
            super().setup_environment()
        else:  # the parent adds a check for CUDA to this, and nothing else
            DDPStrategy.setup_environment(self)
        atexit.register(_destroy_dist_connection)

    def setup_distributed(self) -> None:
        if self.root_device.type != "cpu":
            super().setup_distributed()
            return
        import deepspeed.ops

        # else a shared-memory operator, which only its inference uses, is compiled at the first use
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        reset_seed()  # the parent, less its check of the indices of CUDA devices
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        """Do nothing: all of a network is built and then sharded, since its initial weights are drawn together."""
        yield

    # ---- training

    @property
    def handles_gradient_accumulation(self) -> bool:
        """No: Lightning does. DeepSpeed counts batches, and would carry the rest of an epoch over into the next."""
        return False

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Do nothing: between steps DeepSpeed sums the gradients that each process keeps, stage by stage."""
        yield

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        accumulating = self.lightning_module.trainer.fit_loop._should_accumulate()  # type: ignore[union-attr]
        self.deepspeed_engine.set_gradient_accumulation_boundary(not accumulating)
        return super().training_step(*args, **kwargs)

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, **kwargs: Any) -> Tensor:
        # Lightning has divided the loss by the number of accumulated batches: DeepSpeed must not do it again
        return super().backward(closure_loss, optimizer, *args, scale_wrt_gas=False, **kwargs)

    def clip_gradients(self, parameters: Any, max_norm: float | None) -> Tensor:
        """Return the norm of all gradients, by which DeepSpeed itself clips as it steps."""
        from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3

        optimizer: Any = self.optimizers[0]
        if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
            return torch.linalg.vector_norm(torch.stack([torch.as_tensor(n) for n in optimizer._get_norm_groups()]))
        return torch.as_tensor(optimizer.scaled_global_norm())

    @property
    def is_sharded(self) -> bool:
        """Whether a process holds parts of the weights only."""
        return self.stage == 3

    def full_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Gather the weights of the network by name, one at a time; every rank must take all of them."""
        import deepspeed

        model: nn.Module = self.lightning_module.model  # type: ignore[union-attr, assignment]
        for name, tensor in model.state_dict(keep_vars=True).items():
            with deepspeed.zero.GatheredParameters([tensor] if isinstance(tensor, nn.Parameter) else []):
                yield name, tensor.detach()

    # ---- checkpoints

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        from deepspeed.runtime.zero.config import ZeroStageEnum

        # as Python pickles it since 3.11.4: before, as a call of getattr, which is never loaded
        ZeroStageEnum.__reduce_ex__ = lambda stage, _: (ZeroStageEnum, (stage.value,))
        header = {k: v for k, v in checkpoint.items() if k not in ("state_dict", "plain_weights", "optimizer_states")}
        with atomic_folder(Path(self.broadcast(filepath)), self.barrier) as aside:
            super().save_checkpoint(header, aside, storage_options)
            if self.is_global_zero:
                torch.save(header, aside / HEADER)
                if "plain_weights" in checkpoint:  # which DeepSpeed saves, since it trains them
                    torch.save(checkpoint["state_dict"], aside / AVERAGED)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        checkpoint_path = checked(checkpoint_path)
        if not (checkpoint_path / "checkpoint").is_dir():
            raise InputError(
                f"{checkpoint_path} was not saved under ZeRO, which goes on from its own checkpoints alone: start a "
                f"run from its weights by --model.pretrained {checkpoint_path}"
            )
        zero = getattr(self.model, "optimizer", None)
        if zero is not None and not hasattr(zero, "_restore_from_bit16_weights"):
            # to evaluate a stage 3 checkpoint, deepspeed asks this of an engine that has no optimizer
            zero._restore_from_bit16_weights = lambda: None
        with plain_deepspeed():
            checkpoint = super().load_checkpoint(checkpoint_path, weights_only)
        averaged = Path(checkpoint_path) / AVERAGED
        if averaged.is_file():
            checkpoint["plain_weights"] = self.lightning_module_state_dict()
            checkpoint["state_dict"] = torch.load(averaged, map_location="cpu", weights_only=True)
        return checkpoint

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """To evaluate, the averaged weights, if there are any: :meth:`load_checkpoint` has loaded those to train on."""
        task = self.lightning_module
        if "state_dict" in checkpoint and task.trainer.state.fn != TrainerFn.FITTING:  # type: ignore[union-attr]
            task.load_state_dict(checkpoint["state_dict"], strict=strict)  # type: ignore[union-attr]
