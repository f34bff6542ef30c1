"""The plot of cost as work grows is drawn from real runs."""

import json

from docs.extras.bench import growth
from tests.distributed.jobs import write_config


def test_a_plot_of_points_that_are_what_they_say(tmp_path, monkeypatch):
    small = {
        "model": growth.Axis(
            "parameters", [(None, {"model.config.n_layers": 1}), (None, {"model.config.n_layers": 2})]
        ),
        "batch": growth.Axis("sequences a batch", [(2, {"data.batch_size": 2})]),
    }
    monkeypatch.setattr(growth, "AXES", small)
    more = ["--steps", "2", "--warmup", "1", "--rounds", "2"]
    growth.main(["--config", str(write_config("gpt", tmp_path)), "--output", str(tmp_path / "out"), *more])
    found = json.loads((tmp_path / "out/growth.json").read_text())
    one, two = found["model"]
    assert two["x"] - one["x"] == 12 * 16**2 + 13 * 16  # a block
    assert found["batch"][0]["x"] == 2
    for point in (one, two, *found["batch"]):
        assert len(point["milliseconds"]) == 2
        assert 0 < point["overhead"] + point["data"] < 10 * max(point["milliseconds"])
    assert (tmp_path / "out/growth.png").read_bytes().startswith(b"\x89PNG")
