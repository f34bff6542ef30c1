"""What a class's name in a configuration resolves to: the class that is meant, with the arguments that were given."""

import pytest
import yaml

import src.optim


def resolved(run, config, tmp_path, *arguments) -> dict:
    status, _, err = run("fit", "--config", config, "--trainer.max_steps", 1, *arguments)
    assert status == 0, err
    newest = max((tmp_path / "logs/tiny").glob("version_*"), key=lambda path: int(path.name.partition("_")[2]))
    return yaml.safe_load((newest / "config.yaml").read_text())["model"]["init_args"]


def write(path, optimizer) -> object:
    path.write_text(yaml.safe_dump({"model": {"init_args": {"optimizer": optimizer}}}))
    return path


def test_another_optimizer_starts_from_its_own_defaults(run, config, tmp_path):
    """AdamW's weight decay and betas, of a configuration below, are no settings of the class in its place."""
    adamw = {"class_path": "AdamW", "init_args": {"lr": 0.02, "betas": [0.8, 0.9], "weight_decay": 0.3}}
    layer = write(tmp_path / "adamw.yaml", adamw)
    found = resolved(run, config, tmp_path, "--config", layer, "--model.optimizer", "SGD", "--model.optimizer.lr", 0.5)
    assert found["optimizer"]["class_path"] == "torch.optim.SGD"
    settings = found["optimizer"]["init_args"]
    assert (settings["lr"], settings["weight_decay"], settings["momentum"]) == (0.5, 0.0, 0.0)
    # from one file over another, as a word and as a class with arguments
    for optimizer in ("Lion", {"class_path": "Lion", "init_args": {"lr": 0.001}}):
        lion = write(tmp_path / "lion.yaml", optimizer)
        found = resolved(run, config, tmp_path, "--config", layer, "--config", lion)
        lr = 1e-4 if optimizer == "Lion" else 0.001
        assert found["optimizer"] == {
            "class_path": "src.optim.Lion",
            "init_args": {"lr": lr, "betas": [0.9, 0.99], "weight_decay": 0.0},
        }


def test_the_same_class_keeps_its_arguments(run, config, tmp_path):
    layer = write(tmp_path / "adamw.yaml", {"class_path": "AdamW", "init_args": {"betas": [0.8, 0.9]}})
    found = resolved(run, config, tmp_path, "--config", layer, "--model.optimizer.weight_decay", 0.3)
    settings = found["optimizer"]["init_args"]
    assert (settings["lr"], settings["betas"], settings["weight_decay"]) == (0.01, [0.8, 0.9], 0.3)


def test_another_schedule_starts_from_its_own_defaults(run, config, tmp_path):
    found = resolved(run, config, tmp_path, "--model.schedule", "Linear")
    assert found["schedule"] == {"class_path": "src.optim.Linear", "init_args": {"warmup_steps": 0, "final_factor": 0}}


@pytest.mark.parametrize("name", ["Lion", "Momentum", "Muon", "Nesterov"])
def test_a_short_name_is_this_projects_class_where_torch_has_one_too(run, config, tmp_path, name):
    found = resolved(run, config, tmp_path, "--model.optimizer", name)
    assert found["optimizer"]["class_path"] == f"src.optim.{name}"
    assert hasattr(src.optim, name)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("--model.optimizer.lr=0.5", "--model.optimizer=SGD"),
        ("--model.init_args.optimizer.init_args.lr=0.5", "--model.optimizer=SGD"),
        ("--model.schedule.warmup_steps=3", "--model.init_args.schedule=Linear"),
    ],
)
def test_a_class_after_its_arguments_is_refused(run, config, tmp_path, first, then):
    """It would forget them without a word."""
    status, _, err = run("fit", "--config", config, first, then)
    assert status == 2
    assert err.startswith(f"error: {first.partition('=')[0]} stands before {then.partition('=')[0]}")
    assert not (tmp_path / "logs").exists()
    assert run("fit", "--config", config, "--trainer.max_steps", 1, then, first)[0] == 0


def test_null_on_the_command_line_is_none(run, config, tmp_path):
    """Of a number, a text, a list and a flag, over a file that has a value."""
    layer = tmp_path / "layer.yaml"
    shape = {"positions": "rotary", "n_kv_heads": 1, "window": [4], "window_pattern": "L", "attention_softcap": 30.0}
    optimizer = {"class_path": "AdamW", "init_args": {"betas": [0.8, 0.9], "foreach": True}}
    layer.write_text(yaml.safe_dump({"model": {"init_args": {"config": shape, "optimizer": optimizer}}}))
    names = ["n_kv_heads", "window", "window_pattern", "attention_softcap", "rope_scaling"]
    nulls = [word for name in names for word in (f"--model.config.{name}", "null")]
    found = resolved(run, config, tmp_path, "--config", layer, *nulls, "--model.optimizer.foreach", "null")
    assert [found["config"][name] for name in names] == [None] * len(names)
    assert found["optimizer"]["init_args"]["foreach"] is None
    assert found["optimizer"]["init_args"]["betas"] == [0.8, 0.9]
