"""Going on from what another strategy, or another number of processes, has written, as one process would have."""

import json
from collections import Counter
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from src.checkpoint import read_checkpoint, save_checkpoint
from tests.distributed.jobs import fit, losses, run_job, write_config

HALFWAY, STEPS, SEQ_LEN = 10, 20, 16
BATCH = 8 * 2  # rows of an optimizer step, of two accumulated batches


class Spread(NamedTuple):
    """How a run is spread: by which file, over how many processes, of which so many share the rows of a batch.

    Those that read the same rows are neighbours, but for the stages of a pipeline, of which there are two.
    """

    strategy: str
    processes: int
    ranks: int
    options: tuple[str, ...] = ()


def options(**arguments: object) -> tuple[str, ...]:
    return tuple(f"--trainer.strategy.init_args.{name}={value}" for name, value in arguments.items())


SHARDS = options(save_distributed_checkpoint="true")
FILES = {
    "one": Spread("", 1, 1),
    "ddp": Spread("ddp", 2, 2),
    "fsdp": Spread("fsdp", 2, 2),
    "tensor_parallel": Spread("tensor_parallel", 2, 1),
    "pipeline": Spread("pipeline", 2, 1),
}
FOLDERS = {f"{name}, shards": FILES[name]._replace(options=SHARDS) for name in ("fsdp", "tensor_parallel", "pipeline")}
FOUR = {
    "ddp on four": Spread("ddp", 4, 4),
    "fsdp on four": Spread("fsdp", 4, 4),
    "fsdp x tensor_parallel": Spread("fsdp", 4, 2, options(data_parallel_size=2, tensor_parallel_size=2)),
    "pipeline x fsdp": Spread("pipeline", 4, 2, options(pipeline_size=2)),
    "pipeline x tensor_parallel": Spread("pipeline", 4, 1, options(tensor_parallel_size=2)),
    "pipeline x fsdp, shards": Spread("pipeline", 4, 2, (*options(pipeline_size=2), *SHARDS)),
}
SPREADS = {**FILES, **FOLDERS, **FOUR}
PAIRS = [("pipeline", "fsdp"), ("ddp", "tensor_parallel"), ("one", "pipeline"), ("fsdp", "one")]


def command(config: Path, logs: Path, name: str, *more: str) -> list[str]:
    """A run that writes down the rows that each process trains on."""
    spread = SPREADS[name]
    strategy = (
        ["--config", f"configs/strategy/{spread.strategy}.yaml"] if spread.strategy else ["--trainer.strategy=auto"]
    )
    probe = {"class_path": "tests.distributed.probes.Batches", "init_args": {"folder": str(logs / "rows")}}
    changes = [f"--trainer.devices={spread.processes}", f"--trainer.callbacks={json.dumps([probe])}"]
    changes += ["--allow_class_paths=tests", f"--trainer.max_steps={STEPS}", "--trainer.val_check_interval=1000"]
    changes += [f"--checkpoint.every_n_train_steps={HALFWAY}", "--model.groups.embeddings_lr_scale=0.5"]  # a group more
    changes += [*spread.options, *more]
    return fit(config, logs, "gpt", spread.ranks, *strategy, *changes)


def run_all(folder: Path, commands: dict[str, list[str]], names: dict[str, str]) -> None:
    """Run commands, of runs that are spread as ``names`` says, in as few jobs as there are numbers of processes."""
    for processes in (1, 2, 4):
        chosen = [command for key, command in commands.items() if SPREADS[names[key]].processes == processes]
        if chosen:
            run_job(folder / f"job{processes}", chosen, processes, timeout=3600)


def rows(logs: Path, name: str) -> Counter[tuple[int, ...]]:
    """The rows of the steps behind half-way, with how often they were trained on."""
    found: Counter[tuple[int, ...]] = Counter()
    spread, ranks = SPREADS[name], SPREADS[name].ranks
    neighbours = spread.processes // ranks // (2 if spread.strategy == "pipeline" else 1)
    for rank in range(0, ranks * neighbours, neighbours):  # the first of those that read the same rows
        ids = torch.tensor(json.loads((logs / f"rows/{rank}.json").read_text())).view(-1, SEQ_LEN).tolist()
        found.update(map(tuple, ids[-(STEPS - HALFWAY) * BATCH // ranks :]))
    return found


def halfway(logs: Path) -> Path:
    return logs / f"gpt/version_0/checkpoints/{HALFWAY}.ckpt"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_config("gpt", tmp_path_factory.mktemp("gpt"))


def write(config, folder, names):
    run_all(folder, {name: command(config, folder / name, name) for name in names}, {name: name for name in names})
    return folder


@pytest.fixture(scope="module")
def one(config, tmp_path_factory):
    """The whole run of one process."""
    return write(config, tmp_path_factory.mktemp("written"), ["one"])


@pytest.fixture(scope="module")
def written(config, one):
    """The whole run under each strategy that writes one file, beside it."""
    return write(config, one, [name for name in FILES if name != "one"])


@pytest.fixture(scope="module")
def sharded(config, written):
    """The whole run under each strategy that writes shards, beside them."""
    return write(config, written, FOLDERS)


def go_on(config, folder, files, pairs):
    """Go on from what one has written as another, and hold it to the run of one process."""
    commands = {
        f"{writer} - {reader}": command(
            config, folder / writer / reader, reader, "--ckpt_path", str(halfway(files / writer))
        )
        for writer, reader in pairs
    }
    run_all(folder, commands, {f"{writer} - {reader}": reader for writer, reader in pairs})
    expected, expected_rows = losses(files / "one/gpt/version_0"), rows(files / "one", "one")
    assert len(expected) == STEPS
    for writer, reader in pairs:
        logs = folder / writer / reader
        assert losses(logs / "gpt/version_0") == pytest.approx(expected[HALFWAY:], abs=1e-4), (writer, reader)
        assert rows(logs, reader) == expected_rows, (writer, reader)


@pytest.mark.slow
def test_a_strategy_goes_on_from_the_file_of_another(config, written, tmp_path):
    go_on(config, tmp_path, written, PAIRS)


@pytest.mark.slow
def test_each_goes_on_from_the_file_of_each(config, written, tmp_path):
    go_on(config, tmp_path, written, list(product(FILES, FILES)))


@pytest.mark.slow
def test_four_processes_go_on_from_what_one_or_two_have_written(config, written, sharded, tmp_path):
    go_on(config, tmp_path, written, list(product(["pipeline", "fsdp, shards"], FOUR)))


@pytest.mark.slow
def test_one_and_two_processes_go_on_from_what_four_have_written(config, written, tmp_path):
    write(config, written, FOUR)
    go_on(config, tmp_path, written, list(product(FOUR, ["one", "fsdp"])))


@pytest.mark.slow
def test_each_strategy_writes_the_state_of_the_same_parameters(written):
    """Adam's moments, whose numbers in a file follow from the optimizer's groups."""
    expected = read_checkpoint(halfway(written / "one"))["optimizer_states"][0]
    for name in FILES:
        saved = read_checkpoint(halfway(written / name))["optimizer_states"][0]
        for ours, theirs in zip(saved["param_groups"], expected["param_groups"], strict=True):
            for i, j in zip(ours["params"], theirs["params"], strict=True):
                for moment in ("exp_avg", "exp_avg_sq"):
                    found, wanted = saved["state"][i][moment], expected["state"][j][moment]
                    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "without"),
    [("one", "lr_schedulers"), pytest.param("fsdp", "optimizer_states", marks=pytest.mark.slow)],
)
def test_weights_alone_are_not_gone_on_from(config, one, run, tmp_path, name, without):
    checkpoint = read_checkpoint(halfway(one / "one"))
    del checkpoint[without]
    save_checkpoint(checkpoint, tmp_path / "weights.ckpt")
    arguments = command(config, tmp_path, name, "--ckpt_path", str(tmp_path / "weights.ckpt"))
    if name == "one":
        status, _, err = run(*arguments)
        assert status == 2
    else:
        with pytest.raises(AssertionError, match="exit statuses"):
            run_job(tmp_path / "job", [arguments])
        err = (tmp_path / "job/rank0.log").read_text()
    assert "has weights alone" in err
    assert "Traceback" not in err
