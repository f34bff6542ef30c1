"""Whatever ends a run: a validation of its last weights, and a checkpoint that a longer run goes on from."""

import csv

import pytest
import torch
import yaml

from tests.reliability.runs import assert_same, final

# never an improvement
EARLY = [{"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss", "patience": 1, "min_delta": 100.0}}]
STOP = [{"class_path": "tests.reliability.probes.Stop", "init_args": {"batch": 4}}]


@pytest.fixture
def fit(run, config, tmp_path):
    """A run with epochs of 7 batches, and no validation within 1,000, unless its settings say so; gives its folder."""
    settings = yaml.safe_load(config.read_text())
    settings["trainer"] |= {"val_check_interval": 1000, "max_steps": -1}
    settings["trainer"] |= {"limit_train_batches": 7, "limit_val_batches": 2}
    settings["model"]["init_args"]["schedule"] = {"class_path": "Constant"}

    def command(*arguments, checkpoint=None, **changes):
        config.write_text(yaml.safe_dump({**settings, "trainer": settings["trainer"] | changes}))
        more = ["--ckpt_path", checkpoint] if checkpoint else []
        status, _, err = run("fit", "--config", config, "--allow_class_paths", "tests", *more, *arguments)
        assert status == 0, err
        return max((tmp_path / "logs/tiny").iterdir(), key=lambda path: int(path.name.partition("_")[2]))

    return command


def validations(folder):
    """The steps after which there was one."""
    with (folder / "metrics.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row.get("val/loss")]


ENDS = {
    "epochs": {"max_epochs": 1},
    "epochs_before_steps": {"max_epochs": 1, "max_steps": 500},
    "steps_before_epochs": {"max_epochs": 5, "max_steps": 4},
    "as_many_epochs_as_the_least": {"max_epochs": 1, "min_epochs": 1},
    "in_an_epoch_without_validation": {"max_epochs": 3, "check_val_every_n_epoch": 2, "val_check_interval": 1.0},
    "within_an_epoch_that_validates_at_its_end": {
        "max_steps": 5,
        "check_val_every_n_epoch": 1,
        "val_check_interval": 1.0,
    },
    "time": {"max_time": "00:00:00:01"},
    "stopped_by_a_validation_within_a_step": {
        "val_check_interval": 5,
        "accumulate_grad_batches": 3,
        "callbacks": EARLY,
    },
    "stopped_by_a_callback_within_a_step": {"accumulate_grad_batches": 3, "callbacks": STOP},
    "stopped_before_the_least_epochs": {"val_check_interval": 3, "min_epochs": 2, "callbacks": EARLY},
    "an_incomplete_step": {"max_epochs": 2, "accumulate_grad_batches": 2},
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_the_last_weights_are_validated_and_saved(fit, end):
    """Also where checkpoints are saved at an interval of steps that is not reached."""
    folder = fit(**end)
    last = torch.load(folder / "checkpoints/last.ckpt")
    assert last["global_step"] == validations(folder)[-1]
    assert (folder / "checkpoints/best.ckpt").is_file()


@pytest.mark.parametrize("validation", [2, 0])
def test_the_last_checkpoint_is_of_the_last_step_whatever_the_interval_of_saving(fit, validation):
    folder = fit("--checkpoint.every_n_train_steps", 4, max_steps=6, limit_val_batches=validation)
    assert torch.load(folder / "checkpoints/last.ckpt")["global_step"] == 6


NEVER = {"check_val_every_n_epoch": 3, "val_check_interval": 1.0}


@pytest.mark.parametrize(
    ("end", "settings"),
    [
        ({"max_epochs": 1}, {}),
        pytest.param({"max_epochs": 1, "limit_val_batches": 0}, {"accumulate_grad_batches": 2}, marks=pytest.mark.slow),
        ({"max_steps": 2, "limit_val_batches": 0}, {}),
        pytest.param({"max_epochs": 1, **NEVER}, {"accumulate_grad_batches": 2}, marks=pytest.mark.slow),
        pytest.param({"callbacks": STOP}, {"accumulate_grad_batches": 3}, marks=pytest.mark.slow),
    ],
)
def test_a_longer_run_goes_on_with_the_next_batch(fit, end, settings):
    whole = fit(max_epochs=3, **settings)
    begun = fit(**settings, **end)
    resumed = fit(checkpoint=begun / "checkpoints/last.ckpt", **settings, max_epochs=3)
    assert torch.load(resumed / "checkpoints/last.ckpt")["epoch"] == 2
    assert_same(final(resumed), final(whole))


def test_a_schedule_that_falls_to_an_end_that_nobody_knows_is_refused(run, config):
    """Only the time is limited."""
    only = ("--trainer.max_steps", -1, "--trainer.max_time", "00:00:01:00", "--model.schedule", "Cosine")
    status, _, err = run("fit", "--config", config, *only)
    assert status == 2
    assert "Cosine falls to its end at the last step, and neither trainer.max_steps nor trainer.max_epochs" in err
    assert err.count("\n") == 1
