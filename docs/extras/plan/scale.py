"""The table of scale.md: the bytes that rank 0, which has most, holds on meshes of torch's fake process group.

python -m docs.extras.plan.scale
python -m docs.extras.plan.scale --sizes 0.1B --ranks 8
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from src.distributed import MeshStrategy, PipelineStrategy
from src.extras.plan.network import facts_of
from src.extras.plan.strategies import Layout, estimate
from src.models import GPT, GPTConfig
from src.optim import Constant
from src.tasks import GPTModule

# GPT-2 small, and GPT-3 XL and 6.7B (Brown et al. 2020, table 2.1)
SIZES = {
    "0.1B": GPTConfig(),
    "1.3B": GPTConfig(max_seq_len=2048, d_model=2048, n_heads=16, n_layers=24),
    "7B": GPTConfig(max_seq_len=2048, d_model=4096, n_heads=32, n_layers=32),
}
RANKS = (8, 64, 1024)
MACHINE = 8


@contextmanager
def fake_ranks(n: int, rank: int = 0) -> Iterator[None]:
    """Let this process be one of many, of which there are no others."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=n)
    try:
        yield
    finally:
        dist.destroy_process_group()


def network(config: GPTConfig) -> GPT:
    with torch.device("meta"):
        return GPT(config)


def held(model: nn.Module) -> int:
    """Count the bytes of the local parts of parameters, of their gradients, and of AdamW's two moments, all alike."""
    local = [p.to_local() if isinstance(p, DTensor) else p for p in model.parameters()]
    return 4 * sum(tensor.numel() * tensor.element_size() for tensor in local)


def on_a_mesh(config: GPTConfig, layout: Layout) -> int:
    """Cut as MeshStrategy and PipelineStrategy do; the most that the first rank of a stage holds."""
    found = []
    for stage in range(layout.stages):
        with fake_ranks(layout.devices, layout.devices // layout.stages * stage):
            strategy: MeshStrategy = MeshStrategy("auto", layout.tensor, layout.replicas)
            if layout.stages > 1:
                strategy = PipelineStrategy(layout.stages, "auto", layout.tensor, layout.replicas)
            sizes, model = strategy.sizes(layout.devices), network(config)
            strategy._device_mesh = init_device_mesh("cpu", tuple(sizes.values()), mesh_dim_names=tuple(sizes))
            strategy._shard(model)
            found.append(held(model))
    return max(found)


def layouts(ranks: int) -> dict[Layout, Callable[[GPTConfig, Layout], int]]:
    found = {
        Layout("ddp", ranks): lambda config, layout: held(network(config)),
        Layout("fsdp", ranks): on_a_mesh,
        Layout("tensor_parallel", ranks, tensor=4): on_a_mesh,
        Layout("pipeline", ranks, stages=8): on_a_mesh,
    }
    if ranks > MACHINE:
        found[Layout("fsdp", ranks, replicas=ranks // MACHINE)] = on_a_mesh
        found[Layout("pipeline", ranks, stages=8, tensor=4)] = on_a_mesh
    return found


def rows(sizes: list[str], ranks: list[int]) -> Iterator[tuple[str, Layout, int, int]]:
    """Give a size, a layout, and what a rank holds in all: counted on the fake mesh, and by the formula."""
    for size in sizes:
        config = SIZES[size]
        task = GPTModule(config, optimizer=partial(torch.optim.AdamW), schedule=Constant())
        facts = facts_of(task, "32-true", config.max_seq_len)
        for n in ranks:
            for layout, count in layouts(n).items():
                planned = estimate(facts, layout, 0)
                formula = planned.parameters + planned.gradients + planned.optimizer
                yield size, layout, count(config, layout), int(formula)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--ranks", nargs="+", type=int, default=RANKS)
    options = parser.parse_args()
    print("| network | ranks | strategy | counted | formula | ratio |\n| --- | ---: | --- | ---: | ---: | ---: |")
    for size, layout, counted, formula in rows(options.sizes, options.ranks):
        cells = f"{counted:,} | {formula:,} | {formula / counted:.4f}"
        print(f"| {size} | {layout.devices:,} | {layout} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
