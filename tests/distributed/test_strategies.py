"""Every strategy, really run on two processes over gloo, trains each model as one process does."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.architectures import architectures
from src.checkpoint import load_trained, read_checkpoint
from tests.distributed.collectives import of_a_plain_loop, of_strategies
from tests.distributed.jobs import HALFWAY, ROOT, STEPS, fit, losses, run_job, write_config

KINDS = ("gpt", "bert", "transformer")
# strategy -> how many processes share the rows of a batch
STRATEGIES = {"ddp": 2, "fsdp": 2, "zero1": 2, "zero2": 2, "zero3": 2, "tensor_parallel": 1, "pipeline": 1}


def slow_but(*always: str) -> list:
    """All strategies as parameters; those that are not to be run always are marked."""
    return [pytest.param(name, marks=() if name in always else pytest.mark.slow) for name in STRATEGIES]


SHARDED = ("zero1", "zero2", "zero3")  # whose checkpoints are folders


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    found = {}
    for kind in KINDS:
        root = tmp_path_factory.mktemp(kind)
        found[kind] = write_config(kind, root)
    return found


@pytest.fixture(scope="module")
def alone(configs, tmp_path_factory):
    """The runs of one process."""
    logs = tmp_path_factory.mktemp("alone")
    run_job(logs / "job", [fit(configs[kind], logs, kind) for kind in KINDS], processes=1)
    return logs


@pytest.fixture(scope="module", params=slow_but("fsdp", "zero3"))
def spread(request, configs, alone, tmp_path_factory):
    """The runs of two, and those that go on from their checkpoints of half-way: the name of the strategy, and a folder.

    After ``alone``, which has prepared the data.
    """
    name, ranks = request.param, STRATEGIES[request.param]
    logs = tmp_path_factory.mktemp(name)
    more = ["--config", f"configs/strategy/{name}.yaml", "--trainer.devices", "2"]
    commands = []
    for kind in KINDS:
        whole = fit(configs[kind], logs, kind, ranks, *more)
        halfway = logs / kind / "version_0" / "checkpoints" / f"{HALFWAY}.ckpt"
        commands += [whole, [*whole, "--ckpt_path", str(halfway)]]
    run_job(logs / "job", commands)
    return name, logs


def logits(path: Path, kind: str) -> torch.Tensor:
    """What the network of a checkpoint says of some ids. Its weights are compared by that: where a gradient is zero in
    theory, as of the keys' bias, Adam makes a step of its rounding errors."""
    model = load_trained(path, architectures()[kind].network).model
    ids = torch.randint(model.config.vocab_size, (3, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = model(ids, ids) if kind == "transformer" else model(ids)
    return output.masked_words if kind == "bert" else output


@pytest.mark.parametrize("kind", KINDS)
def test_the_losses_are_those_of_one_process(spread, alone, kind):
    """With accumulation, clipping, and validation splits and epochs that do not divide evenly over the processes."""
    for metric, count in (("train/loss", STEPS), ("train/gradient_norm", STEPS), ("val/loss", 2)):
        expected = losses(alone / kind / "version_0", metric)
        assert len(expected) == count
        assert losses(spread[1] / kind / "version_0", metric) == pytest.approx(expected, abs=1e-4), metric
    clipped = [norm > 0.3 for norm in losses(alone / kind / "version_0", "train/gradient_norm")]
    assert any(clipped)


@pytest.mark.parametrize("name", slow_but("tensor_parallel", "pipeline"))
def test_all_logits_are_never_there_at_once(configs, alone, tmp_path, name):
    """Whatever the strategy, the vocabulary's softmax is of a few rows at a time, and the loss is the same."""
    commands = []
    for kind in KINDS:
        probe = {"class_path": "tests.distributed.probes.Softmaxes", "init_args": {"folder": str(tmp_path / kind)}}
        more = ["--config", f"configs/strategy/{name}.yaml", "--trainer.devices", "2", "--trainer.max_steps", "1"]
        more += [f"--trainer.callbacks={json.dumps([probe])}", "--allow_class_paths=tests"]
        commands.append(
            [*fit(configs[kind], tmp_path, kind, STRATEGIES[name], *more), "--trainer.val_check_interval=2"]
        )
    run_job(tmp_path / "job", commands)
    for kind in KINDS:
        for metric in ("train/loss", "train/gradient_norm"):
            first = losses(alone / kind / "version_0", metric)[0]
            assert losses(tmp_path / kind / "version_0", metric) == pytest.approx([first], abs=1e-4)
        vocabulary = read_checkpoint(alone / kind / "version_0/checkpoints/last.ckpt")["model_config"]["vocab_size"]
        half = -(-vocabulary // 2)
        sizes = [half, vocabulary - half] if name == "tensor_parallel" else [vocabulary, vocabulary]
        ranks = [json.loads((tmp_path / kind / f"{rank}.json").read_text()) for rank in (0, 1)]
        found = [rows.pop(str(size), 0) for rows, size in zip(ranks, sizes, strict=True)]
        if name == "pipeline":
            assert found.pop(0) == 0
        assert all(0 < most <= 4 for most in found), (kind, found)
        assert all(int(classes) <= 2 for rows in ranks for classes in rows)  # of next sentences


def test_translations_are_those_of_one_process(spread, alone):
    for metric in ("val/bleu", "val/chrf", "val/token_accuracy"):
        expected = losses(alone / "transformer" / "version_0", metric)
        assert losses(spread[1] / "transformer" / "version_0", metric) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_rank_shows_what_one_process_shows(spread, alone, kind):
    """Samples, maps of attention, embeddings and charts."""
    shown = []
    for logs in (alone, spread[1]):
        run = logs / kind / "version_0"
        tags = EventAccumulator(str(run)).Reload().Tags()
        files = {p.relative_to(run).as_posix() for name in ("samples", f"{STEPS:05d}") for p in (run / name).rglob("*")}
        shown.append((sorted(tags["images"]), sorted(tags["tensors"]), sorted(tags["scalars"]), sorted(files)))
    assert shown[0] == shown[1]
    assert all(shown[0])


@pytest.mark.parametrize("kind", KINDS)
def test_its_checkpoint_goes_on_where_it_was(spread, kind):
    first, resumed = (losses(spread[1] / kind / f"version_{n}") for n in (0, 1))
    assert len(resumed) == STEPS - HALFWAY
    assert resumed == pytest.approx(first[HALFWAY:], abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_checkpoint_of_one_file_gives_the_logits_of_one_process(spread, alone, kind, run, tmp_path):
    name, logs = spread
    path = logs / kind / "version_0" / "checkpoints" / "last.ckpt"
    if name in SHARDED:
        assert "verb consolidate" in run("generate", "--checkpoint", path, "--prompt", "a")[2]
        status, _, err = run("consolidate", "--checkpoint", path, "--output", tmp_path / "one.ckpt")
        assert status == 0, err
        path = tmp_path / "one.ckpt"
    expected = alone / kind / "version_0" / "checkpoints" / "last.ckpt"
    assert read_checkpoint(path)["state_dict"].keys() == read_checkpoint(expected)["state_dict"].keys()
    torch.testing.assert_close(logits(path, kind), logits(expected, kind), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_shards_become_one_file(configs, alone, run, tmp_path):
    """FSDP may write a folder of shards; it resumes from it, and `consolidate` makes a file of it."""
    more = ["--config", "configs/strategy/fsdp.yaml", "--trainer.devices", "2"]
    more += ["--trainer.strategy.init_args.save_distributed_checkpoint", "true"]
    command = fit(configs["gpt"], tmp_path, "gpt", 2, *more)
    folder = tmp_path / "gpt" / "version_0" / "checkpoints" / f"{HALFWAY}.ckpt"
    run_job(tmp_path / "job", [command, [*command, "--ckpt_path", str(folder)]])
    assert losses(tmp_path / "gpt" / "version_1") == pytest.approx(
        losses(alone / "gpt" / "version_0")[HALFWAY:], abs=1e-4
    )
    status, _, err = run("consolidate", "--checkpoint", folder, "--output", tmp_path / "one.ckpt")
    assert (status, err) == (0, "")
    expected = alone / "gpt" / "version_0" / "checkpoints" / f"{HALFWAY}.ckpt"
    torch.testing.assert_close(logits(tmp_path / "one.ckpt", "gpt"), logits(expected, "gpt"), atol=1e-4, rtol=0)
    next(folder.glob("*.distcp")).write_bytes(b"cut off")
    status, _, err = run("consolidate", "--checkpoint", folder, "--output", tmp_path / "two.ckpt")
    assert status == 2
    assert "incomplete or damaged" in err
    assert not (tmp_path / "two.ckpt").exists()


@pytest.mark.slow
def test_fsdp_reduces_gradients_once_a_step_and_gathers_the_rest_of_the_network_once_a_batch(configs, alone, tmp_path):
    """Two steps of two accumulated batches: two blocks, and what is around them."""
    commands, steps, batches = [], 2, 4
    for each in ("false", "true"):
        probe = {"class_path": "tests.distributed.probes.Collectives", "init_args": {"folder": str(tmp_path / each)}}
        more = ["--config", "configs/strategy/fsdp.yaml", "--trainer.devices", "2", f"--trainer.max_steps={steps}"]
        more += [f"--trainer.strategy.init_args.sync_each_batch={each}", "--allow_class_paths=tests"]
        more += [f"--trainer.callbacks={json.dumps([probe])}", "--trainer.val_check_interval=100"]
        commands.append(fit(configs["gpt"], tmp_path / "logs" / each, "gpt", 2, *more))
    run_job(tmp_path / "job", commands)
    for each, reductions in (("false", 3 * steps), ("true", 3 * batches)):
        for rank in (0, 1):
            calls = sum(map(Counter, json.loads((tmp_path / each / f"{rank}.json").read_text())), Counter())
            assert calls["_reduce_scatter_base_"] == reductions
            assert calls["_allgather_base_"] == (2 + 2 + 1) * batches  # blocks, forward and backward; the rest
        found = losses(tmp_path / "logs" / each / "gpt" / "version_0")
        assert found == pytest.approx(losses(alone / "gpt" / "version_0")[:steps], abs=1e-4)


@pytest.mark.slow
def test_a_step_makes_two_collectives_more_than_a_plain_loop(tmp_path):
    """The count of targets, and the guard's look at all losses."""
    plain, ours = of_a_plain_loop(tmp_path), of_strategies(["ddp"], tmp_path)["ddp"]
    assert plain.total() > 0
    assert ours.total() <= plain.total() + 2, (plain, ours)


COMPILER = shutil.which("g++") or shutil.which("clang++")
COMPILED = pytest.mark.skipif(COMPILER is None, reason="torch.compile needs a C++ compiler")


@pytest.mark.slow
@pytest.mark.parametrize("option", ["activation_checkpointing", pytest.param("compile", marks=COMPILED)])
def test_an_option_works_with_each(configs, alone, tmp_path, option):
    """Activation checkpointing and compiled blocks change no loss."""
    commands, expected = [], losses(alone / "gpt" / "version_0")
    runs = []
    for name, ranks in STRATEGIES.items():
        logs = tmp_path / name
        more = ["--config", f"configs/strategy/{name}.yaml", "--trainer.devices", "2"]
        more += [f"--model.init_args.{option}", "true"]
        commands.append(fit(configs["gpt"], logs, "gpt", ranks, *more))
        runs.append(logs / "gpt" / "version_0")
    # the compiler recurses too deeply where many strategies follow each other in one process
    for n, job in enumerate([[command] for command in commands] if option == "compile" else [commands]):
        run_job(tmp_path / f"job{n}", job)
        # torch says of which function it met its limit; of DeepSpeed's hooks it does
        assert f"({ROOT}/src/" not in (tmp_path / f"job{n}/rank0.log").read_text()
    for logs in runs:
        assert losses(logs) == pytest.approx(expected, abs=1e-4), logs


def trained_alike(configs, folder, strategies, options, tolerance):
    """Hold each model under some strategies, with some options, to one process with the same."""
    logs = folder / "one"
    run_job(logs / "job", [fit(configs[kind], logs, kind, 1, *options) for kind in KINDS], processes=1)
    expected = {kind: losses(logs / kind / "version_0") for kind in KINDS}
    for name in strategies:
        more = ["--config", f"configs/strategy/{name}.yaml", "--trainer.devices", "2", *options]
        logs = folder / name
        run_job(logs / "job", [fit(configs[kind], logs, kind, STRATEGIES[name], *more) for kind in KINDS])
        for kind in KINDS:
            found = losses(logs / kind / "version_0")
            assert found == pytest.approx(expected[kind], abs=tolerance), (name, kind)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["Muon", "Lion"])
def test_an_optimizer_of_this_project(configs, tmp_path, optimizer):
    """Muon needs whole matrices, which FSDP and tensor parallelism gather for it; ZeRO refuses it."""
    strategies = [name for name in STRATEGIES if not (optimizer == "Muon" and name in SHARDED)]
    trained_alike(configs, tmp_path, strategies, ["--model.init_args.optimizer", optimizer], 1e-4)


# what is set for each head is another rank's under tensor parallelism; the stages of a pipeline make their own masks
WINDOW = ["--model.init_args.config.attention=sliding_window", "--model.init_args.config.window=3"]
LONG = {
    "alibi": ["--model.init_args.config.positions=alibi", "--data.init_args.separate_documents=true"],
    "rotary": ["--model.init_args.config.positions=rotary", "--model.init_args.config.dilation=[1,2]"],
    "sinusoidal": ["--model.init_args.config.positions=sinusoidal"],
    "longformer": [],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategies", "names"),
    [
        (("tensor_parallel", "pipeline"), ("alibi", "longformer")),
        (tuple(STRATEGIES), tuple(LONG)),
    ],
)
def test_windows_positions_and_documents(configs, tmp_path, strategies, names):
    """GPT with each kind of position in a window, and Longformer, with dilation by head."""
    longformer = write_config("longformer", tmp_path)
    runs = {name: (configs["gpt"], "gpt", [*WINDOW, *LONG[name]]) for name in names}
    runs["longformer"] = (longformer, "longformer", [])
    alone = [fit(config, tmp_path / "alone" / name, kind, 1, *more) for name, (config, kind, more) in runs.items()]
    run_job(tmp_path / "job1", alone, processes=1)
    commands = []
    for strategy in strategies:
        spread = ["--config", f"configs/strategy/{strategy}.yaml", "--trainer.devices", "2"]
        for name, (config, kind, more) in runs.items():
            logs = tmp_path / strategy / name
            commands.append(fit(config, logs, kind, STRATEGIES[strategy], *more, *spread))
    run_job(tmp_path / "job2", commands, timeout=600)
    for name, (_, kind, _) in runs.items():
        expected = losses(tmp_path / "alone" / name / kind / "version_0")
        assert len(expected) == STEPS
        for strategy in strategies:
            found = losses(tmp_path / strategy / name / kind / "version_0")
            assert found == pytest.approx(expected, abs=1e-4), (strategy, name)


# processes along the data-parallel and the tensor-parallel dimension, and groups that have all shards each
MESHES = {"fsdp x tensor parallel": (2, 2, 1), "hsdp": (4, 1, 2), "ddp x tensor parallel": (2, 2, 2)}


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_meshes_of_several_dimensions(configs, alone, tmp_path, mesh):
    """On four processes; a group of one shard is plain data parallelism."""
    options = zip(("data_parallel_size", "tensor_parallel_size", "replicate_size"), MESHES[mesh], strict=True)
    more = ["--config", "configs/strategy/fsdp.yaml", "--trainer.devices", "4"]
    more += [f"--trainer.strategy.init_args.{name}={size}" for name, size in options]
    commands = [fit(configs[kind], tmp_path, kind, MESHES[mesh][0], *more) for kind in KINDS]
    run_job(tmp_path / "job", commands, processes=4)
    for kind in KINDS:
        expected = losses(alone / kind / "version_0")
        assert losses(tmp_path / kind / "version_0") == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_mixed_precision_is_near(configs, alone, tmp_path):
    commands = []
    for name, ranks in STRATEGIES.items():
        more = ["--config", f"configs/strategy/{name}.yaml", "--trainer.devices", "2"]
        commands.append([*fit(configs["gpt"], tmp_path / name, "gpt", ranks, *more), "--trainer.precision=bf16-mixed"])
    run_job(tmp_path / "job", commands)
    for name in STRATEGIES:
        found = losses(tmp_path / name / "gpt" / "version_0")
        assert found == pytest.approx(losses(alone / "gpt" / "version_0"), abs=0.02), name
        assert found != losses(alone / "gpt" / "version_0")
