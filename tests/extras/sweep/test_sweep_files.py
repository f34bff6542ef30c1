"""The sweeps that come with the project; and how fast a sweep is refused."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from src.cli.check_fit import check_fit
from src.extras.sweep.configuration import layered, with_settings
from src.extras.sweep.definition import sweep_of
from tests.conftest import WORDS

ROOT = Path(__file__).parents[3]


def test_a_sweep_is_refused_before_anything_heavy_is_imported():
    code = "import sys, src.extras.sweep.cli\n"
    code += "print([m for m in ('torch', 'lightning', 'optuna', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "configs/extras/sweep").glob("*.yaml")), ids=lambda path: path.name)
def test_a_sweep_makes_complete_configurations(run, path, tmp_path):
    """Each choice makes a configuration of a GPT that can be trained; the keys are those of the other models too.

    But for a ladder's, which sets a depth, and that is another key in each model.
    """
    sweep = sweep_of(yaml.safe_load(path.read_text()), path.name)
    text = tmp_path / "text.txt"
    text.write_text(" ".join(WORDS * 170))
    data = {"data.source": str(text), "data.tokenizer": "byte", "data.validation_fraction": 0.1}
    data |= {"data.document_separator": " ", "data.cache_dir": str(tmp_path)}
    cells = {sweep.group(cell): cell for cell in sweep.probes()}.values()
    for cell in cells:
        check_fit(with_settings(sweep.config_of(layered([ROOT / sweep.base[0]]), cell, 0), data))
    for model in () if sweep.ladder else ("bert", "transformer"):
        config = sweep.config_of(layered([ROOT / f"configs/small/{model}.yaml"]), next(iter(cells)), 0)
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        status, _, err = run("fit", "--config", tmp_path / "config.yaml", "--print_config")
        assert status == 0, err
