"""The operators of a step are those that train, and their times add up."""

import re

from docs import operators


def test_the_operators_of_a_step(config, capsys, monkeypatch):
    monkeypatch.setattr(operators, "ROWS", 1000)  # which of them are slow differs from run to run
    operators.observe(["--config", str(config)])
    rows = dict(re.findall(r"^\| (\S+) \| ([\d.]+) \|$", capsys.readouterr().out, re.MULTILINE))
    assert {"mm", "native_layer_norm"} <= rows.keys()
    total = float(rows.pop("all"))
    assert 0 < sum(map(float, rows.values())) <= total + 0.05 * (len(rows) + 1)  # each is rounded
