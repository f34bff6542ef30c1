"""Retriever and reranker on two processes: what one process trains, negatives of the whole batch included."""

import pytest

import src.cli
from src.checkpoint import load_trained
from src.extras.retrieval.bi_encoder import BiEncoder
from tests.callbacks.charts import check_charts
from tests.distributed.jobs import STEPS, fit, losses, run_job
from tests.extras.retrieval.conftest import write_config

KINDS = ("retriever", "reranker")
STRATEGIES = {"ddp": 2, "fsdp": 2, "zero2": 2, "zero3": 2, "tensor_parallel": 1, "pipeline": 1}
WHOLE = ["--trainer.strategy.init_args.micro_batches", "1", "--trainer.strategy.init_args.schedule", "GPipe"]


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    return {kind: write_config(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def alone(configs, tmp_path_factory):
    """The runs of one process."""
    logs = tmp_path_factory.mktemp("alone")
    for kind in KINDS:
        src.cli.main(fit(configs[kind], logs, kind))
    return logs


@pytest.mark.parametrize("kind", KINDS)
def test_the_charts_hold_what_is_logged(alone, kind):
    check_charts(alone / kind / "version_0")


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_two_processes_train_as_one(configs, alone, tmp_path, name):
    """With accumulation, and splits that do not divide evenly: a rank may have rows that only fill up a batch."""
    more = ["--config", f"configs/strategy/{name}.yaml", "--trainer.devices", "2"]
    commands = []
    for kind in KINDS:
        whole = WHOLE if (name, kind) == ("pipeline", "retriever") else []
        commands.append(fit(configs[kind], tmp_path, kind, STRATEGIES[name], *more, *whole))
    run_job(tmp_path / "job", commands)
    for kind in KINDS:
        # cosines that differ by their rounding alone may change places
        for metric, count, near in (("train/loss", STEPS, 2e-4), ("val/loss", 2, 2e-4), ("val/mrr", 2, 1e-2)):
            expected = losses(alone / kind / "version_0", metric)
            assert len(expected) == count
            assert losses(tmp_path / kind / "version_0", metric) == pytest.approx(expected, abs=near), (kind, metric)
    if not name.startswith("zero"):
        assert load_trained(tmp_path / "retriever/version_0/checkpoints/last.ckpt", BiEncoder)


def test_a_batch_that_is_compared_as_a_whole_is_not_cut(configs, run, tmp_path):
    more = ["--config", "configs/strategy/pipeline.yaml", "--trainer.devices", "2"]
    status, _, err = run(*fit(configs["retriever"], tmp_path, "retriever", 1, *more))
    assert status == 2
    assert "set micro_batches to 1 and schedule to GPipe" in err
    assert err.count("\n") == 1
