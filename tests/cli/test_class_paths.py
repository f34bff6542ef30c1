"""What a configuration may name is decided before anything is imported for it."""

import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def naming(config, tmp_path, monkeypatch):
    """A configuration that names a class of a module outside, which leaves a file where it is imported."""
    (tmp_path / "outside_module.py").write_text(
        f"from pathlib import Path\nimport lightning as L\nPath({str(tmp_path / 'imported')!r}).touch()\n"
        "class Outside(L.Callback):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = yaml.safe_load(config.read_text())
    settings["trainer"]["callbacks"] = [{"class_path": "outside_module.Outside"}]
    settings["trainer"]["max_steps"] = 1
    config.write_text(yaml.safe_dump(settings))
    return config


def test_a_module_that_is_not_allowed_is_not_imported(run, naming, tmp_path):
    status, _, err = run("fit", "--config", naming)
    assert status == 2
    assert "'outside_module.Outside' is not imported" in err
    assert "--allow_class_paths outside_module" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "imported").exists()
    assert "outside_module" not in sys.modules


def test_a_module_that_is_allowed_is(run, naming, tmp_path):
    """For this command: the checkpoint that it leaves does not allow it to the next one."""
    status, _, err = run("fit", "--config", naming, "--allow_class_paths", "outside_module")
    assert status == 0, err
    assert (tmp_path / "imported").exists()
    last = tmp_path / "logs/tiny/version_0/checkpoints/last.ckpt"
    status, _, err = run("validate", "--ckpt_path", last)
    assert status == 2
    assert "--allow_class_paths outside_module" in err
    assert run("validate", "--ckpt_path", last, "--allow_class_paths", "outside_module")[0] == 0


@pytest.mark.parametrize(
    "name",
    ["os.system", "subprocess.Popen", "builtins.exec", "torch.hub.load", "torch.load", "torch.utils.cpp_extension.load",
     "torch.jit.load", "lightning.app.LightningFlow", "jsonargparse.CLI", "importlib.import_module", "numpy.load"],
)  # fmt: skip
def test_what_runs_or_loads_code_is_not_allowed(run, config, name):
    for key in ("trainer.callbacks", "model.optimizer"):
        status, _, err = run("fit", "--config", config, f"--{key}", name)
        assert status == 2
        assert err.count("\n") == 1


def test_tensorboard_listens_on_this_machine_only():
    script = (ROOT / "run.sh").read_text()
    assert 'tensorboard" --host 127.0.0.1 "$@"' in script
