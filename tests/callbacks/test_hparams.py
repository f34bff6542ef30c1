"""The HParams tab as TensorBoard itself reads a run: the settings that were asked for, the seed and the metric."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import SummaryWriter

from src.callbacks import log_hparams


def tab(folder):
    """The columns of a run and its metrics."""
    events = EventAccumulator(str(folder))
    events.Reload()
    found = events.PluginTagToContent("hparams")
    start = HParamsPluginData.FromString(found["_hparams_/session_start_info"]).session_start_info
    experiment = HParamsPluginData.FromString(found["_hparams_/experiment"]).experiment
    values = {k: v.string_value or v.number_value for k, v in start.hparams.items()}
    return values, [info.name.tag for info in experiment.metric_infos], events


def test_a_run_shows_what_matters_and_nothing_else(run, config, tmp_path):
    status, _, err = run("fit", "--config", config, "--seed_everything", 7, "--model.optimizer", "Nesterov")
    assert status == 0, err
    values, metrics, events = tab(tmp_path / "logs/tiny/version_0")
    assert values == {
        "model.config.activation": "gelu_tanh",
        "model.optimizer": "Nesterov",
        "model.optimizer.lr": 0.01,
        "model.schedule": "Cosine",
        "seed": 7,
    }
    assert metrics == ["val/loss"]
    assert len(events.Scalars("val/loss")) == 2


def test_the_settings_and_metrics_can_be_chosen(run, config, tmp_path):
    chosen = ["data.batch_size", "model.config.d_ff", "trainer.devices"]
    options = ["--hparams.keys", str(chosen), "--hparams.metrics", "[val/perplexity]"]
    status, _, err = run("fit", "--config", config, *options)
    assert status == 0, err
    values, metrics, _ = tab(tmp_path / "logs/tiny/version_0")
    # the default width is None, and is not shown
    assert values == {"data.batch_size": 4, "trainer.devices": "auto", "seed": 0.0}
    assert metrics == ["val/perplexity"]


@pytest.mark.parametrize("key", ["model.config.d_fff", "nothing", "trainer.max_steps.more", "model.optimizer.lr.x"])
def test_a_setting_that_is_not_there_is_refused_before_the_run(run, config, tmp_path, key):
    status, _, err = run("fit", "--config", config, "--hparams.keys", f"[{key}]")
    assert status == 2
    assert err == f"error: hparams.keys: the configuration has no {key!r}\n"
    assert not (tmp_path / "logs").exists()


def test_a_folder_of_its_own(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        log_hparams(writer, {"activation": "relu", "lr": 0.1, "unset": None}, ["val/loss", "val/bleu"])
    values, metrics, _ = tab(tmp_path)
    assert (values, metrics) == ({"activation": "relu", "lr": 0.1}, ["val/loss", "val/bleu"])
