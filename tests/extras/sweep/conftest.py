"""Sweeps of a model that trains in a second."""

from pathlib import Path

import pytest
import yaml


@pytest.fixture
def write_sweep(tmp_path: Path, config: Path, monkeypatch):
    """Write a sweep file over the small configuration; gives its path."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def write(name: str = "sweep.yaml", **content) -> Path:
        path = tmp_path / name
        settings = {"base": str(config), "parameters": {"model.config.activation": ["relu", "gelu"]}, **content}
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        return path

    return write
