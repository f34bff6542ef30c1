"""Programs that load exports compute what the network here does; what installs and runs quickly is run each time."""

from pathlib import Path

import pytest

from docs.extras.huggingface.interoperability import CASES, difference

ROOT = Path(__file__).parents[3]
SLOW = ("onnxruntime", "lm_eval")  # many seconds each: torch traces a network, or a harness is imported


def ids(case):
    return f"{case.package}: {case.model}, {case.outputs.__name__}"


def marked(case):
    return pytest.param(case, marks=pytest.mark.slow if case.package in SLOW else (), id=ids(case))


@pytest.mark.parametrize("case", [marked(case) for case in CASES])
def test_outputs_are_those_of_the_network_here(case, tmp_path):
    pytest.importorskip(case.package.replace("-", "_"))
    assert difference(case, tmp_path / "model") < 1e-5


def test_the_table_has_a_row_for_each():
    table = (ROOT / "docs/extras/huggingface/interoperability.md").read_text()
    for case in CASES:
        assert any(
            all(f" {cell} " in line for cell in (case.package, case.model, f"`{case.command}`"))
            for line in table.splitlines()
        ), ids(case)
