"""How often each collective is called in an optimizer step, under each strategy and in a plain loop with torch's DDP.

    python -m tests.distributed.collectives

Two processes over gloo, a GPT of two blocks, one batch a step. Prints the table of docs/strategies.md.
"""

import json
import os
import tempfile
from collections import Counter
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from src.models import GPT, GPTConfig
from tests.distributed.jobs import ROOT, fit, free_port, run_job, write_config
from tests.distributed.probes import Calls

STRATEGIES = [path.stem for path in sorted((ROOT / "configs/strategy").glob("*.yaml"))]


def of_strategies(names: list[str], root: Path) -> dict[str, Counter[str]]:
    """Count in the last of several steps of `fit`, none of which is logged; of the rank that calls most."""
    config, commands = write_config("gpt", root), []
    for name in names:
        probe = {"class_path": "tests.distributed.probes.Collectives", "init_args": {"folder": str(root / name)}}
        more = ["--config", f"configs/strategy/{name}.yaml", "--trainer.devices=2", "--allow_class_paths=tests"]
        more += [f"--trainer.callbacks={json.dumps([probe])}", "--trainer.max_steps=4", "--trainer.limit_val_batches=0"]
        more += ["--trainer.accumulate_grad_batches=1", "--trainer.log_every_n_steps=100"]
        commands.append(fit(config, root / "logs" / name, "gpt", 1, *more))
    run_job(root / "job", commands, timeout=900)
    ranks = {name: [json.loads((root / name / f"{rank}.json").read_text())[-1] for rank in (0, 1)] for name in names}
    return {name: max(map(Counter, calls), key=Counter.total) for name, calls in ranks.items()}


def of_a_plain_loop(root: Path) -> Counter[str]:
    """Count in the last of several steps of two processes that do nothing but train."""
    path = root / "plain.json"
    torch.multiprocessing.spawn(_train, (free_port(), str(path)), nprocs=2)
    return Counter(json.loads(path.read_text()))


def _train(rank: int, port: int, path: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    config = GPTConfig(40, max_seq_len=16, d_model=16, n_heads=2, n_layers=2, dropout=0.0, attention_dropout=0.0)
    model = DistributedDataParallel(GPT(config))
    optimizer, ids = torch.optim.AdamW(model.parameters()), torch.arange(32).view(2, 16)
    with Calls() as calls:
        for _ in range(4):
            calls.found.clear()
            model(ids, labels=ids).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    if rank == 0:
        Path(path).write_text(json.dumps(calls.found))
    dist.destroy_process_group()


def main() -> None:
    """Print a row for each."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = {"a plain loop with DDP": of_a_plain_loop(root), **of_strategies(STRATEGIES, root)}
    for name, calls in rows.items():
        listed = ", ".join(f"{count} {call.strip('_')}" for call, count in sorted(calls.items()))
        print(f"| {name} | {calls.total()} | {listed} |")


if __name__ == "__main__":
    main()
