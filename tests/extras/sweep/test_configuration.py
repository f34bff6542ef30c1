"""A run's configuration holds what its cell says, and nothing of the classes that the cell replaced."""

from functools import reduce
from operator import getitem

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from src.errors import InputError
from src.extras.sweep.configuration import layered, read_yaml, with_settings

ADAMW = {"class_path": "AdamW", "init_args": {"lr": 0.1, "weight_decay": 0.1}}


def base():
    return {"model": {"class_path": "GPTModule", "init_args": {"optimizer": dict(ADAMW), "config": {"d_model": 8}}}}


def optimizer(config):
    return config["model"]["init_args"]["optimizer"]


@pytest.mark.parametrize(
    "settings",
    [
        {"model.optimizer.class_path": "SGD", "model.optimizer.lr": 3},
        {"model.optimizer": "SGD", "model.optimizer.lr": 3},
        {"model.optimizer": {"class_path": "SGD"}, "model.optimizer.lr": 3},
        {"model.init_args.optimizer": {"class_path": "SGD", "init_args": {"lr": 3}}},
    ],
)
def test_another_class_inherits_no_argument(settings):
    before = base()
    assert optimizer(with_settings(before, settings)) == {"class_path": "SGD", "init_args": {"lr": 3}}
    assert before == base()


def test_the_same_class_keeps_its_arguments():
    made = with_settings(base(), {"model.optimizer.class_path": "AdamW", "model.optimizer.lr": 3})
    assert optimizer(made) == {"class_path": "AdamW", "init_args": {"lr": 3, "weight_decay": 0.1}}


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join),
    st.none() | st.integers() | st.text() | st.lists(st.integers()),
)
def test_what_was_set_is_what_is_there(key, value):
    made = with_settings({"a": {"b": 1}}, {key: value})
    assert reduce(getitem, key.split("."), made) == value


def test_a_layer_with_another_class_inherits_no_argument(tmp_path):
    lower, upper = tmp_path / "lower.yaml", tmp_path / "upper.yaml"
    lower.write_text(yaml.safe_dump(base()))
    upper.write_text("model: {init_args: {optimizer: {class_path: SGD, init_args: {lr: 1e-3}}}}\n")
    made = layered([lower, upper])
    assert optimizer(made) == {"class_path": "SGD", "init_args": {"lr": 0.001}}
    assert made["model"]["init_args"]["config"] == {"d_model": 8}


@pytest.mark.parametrize("content", [b"a: [1", b"- 1", b"", b"\xff\xfe", None])
def test_a_file_that_is_no_mapping(tmp_path, content):
    path = tmp_path / "file.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"file\.yaml"):
        read_yaml(path)
