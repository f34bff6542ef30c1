"""The options of a verb are the parameters of its function, its help is the docstring."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from src.cli.verb import Fraction, NonNegative, NonNegativeFloat, Positive, call
from src.errors import InputError


@dataclass
class Place:
    """Where.

    Args:
        device: a CPU
            or a GPU
    """

    device: str = "cpu"


@dataclass
class Folder(Place):
    """Where, more exactly.

    Args:
        folder: on the device
    """

    folder: Path | None = None


def verb(
    name: str,
    /,
    *rest: str,
    input_: Path,
    place: Folder,
    text: list[str] | None = None,
    seeds: tuple[int, ...] | None = None,
    top_k: Positive | None = None,
    seed: NonNegative = 0,
    penalty: NonNegativeFloat = 0.6,
    top_p: Fraction = 1.0,
    mode: Literal["a", "b"] = "a",
    fast: bool = False,
) -> dict:
    """Do it, 100% of it.

    Args:
        name: of it
        input_: a file
        text: repeat it
        seeds: several
        top_k: 95% of them
        seed: of the draws
        penalty: of length
        top_p: mass
        mode: how
        fast: or slow

    Not an argument: this.
    """
    return dict(locals())


def strict(count: Positive = 1) -> int:
    """Count.

    Args:
        count: how many
    """
    return count


def test_defaults_are_those_of_the_function():
    found = call("x", verb, ["verb", "--input", "a.txt", "it"])
    assert (found.pop("name"), found.pop("rest"), found.pop("place")) == ("it", (), Folder())
    others = {"seed": 0, "penalty": 0.6, "top_p": 1.0, "mode": "a", "fast": False}
    assert found == {"input_": Path("a.txt"), "text": None, "seeds": None, "top_k": None, **others}


def test_options_are_read_by_their_types():
    words = "it --input=a --text null --text [a] --seeds 1 2 --top-k 3 --penalty 2 --mode b --fast --device cuda"
    found = call("x", verb, ["verb", *words.split(), "--folder", "f", "--data.seq_len", "8"])
    assert found["text"] == ["null", "[a]"]  # as they stand, and not as YAML
    assert (found["seeds"], found["top_k"], found["penalty"], found["mode"]) == ([1, 2], 3, 2.0, "b")
    assert found["fast"]
    assert found["place"] == Folder("cuda", Path("f"))
    assert found["rest"] == ("--data.seq_len", "8")


def test_a_function_of_arguments_has_the_command_line_as_it_stands():
    assert call("x", lambda arguments: arguments, ["fit", "--help"]) == ["fit", "--help"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--count 0", "argument --count: '0' is no whole number of at least 1 (see x --help)"),
        ("--count 1.5", "'1.5' is no whole number of at least 1"),
        ("--coun 2", "unrecognized arguments: --coun 2; did you mean '--count'? (see x --help)"),
        ("two", "unrecognized arguments: two (see x --help)"),
    ],
)
def test_what_is_wrong_is_one_line(words, message):
    with pytest.raises(InputError) as error:
        call("x", strict, ["strict", *words.split()])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("it", "the following arguments are required: --input"),
        ("it --input a --seed -1", "--seed: '-1' is no whole number from 0 to 2^63 - 1"),
        ("it --input a --penalty inf", "--penalty: 'inf' is no number between 0 and inf"),
        ("it --input a --top-p 0", "--top-p: '0' is no number between 1e-09 and 1"),
        ("it --input a --mode c", "--mode: invalid choice: 'c'"),
    ],
)
def test_a_value_that_is_not_of_the_type(words, message):
    with pytest.raises(InputError, match=r"see x --help") as error:
        call("x", verb, ["verb", *words.split()])
    assert message in str(error.value)


def test_help_is_the_docstring(capsys):
    with pytest.raises(SystemExit):
        call("python -m src verb", verb, ["verb", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("usage: python -m src verb [-h] --input PATH")
    for part in (
        "Do it, 100% of it.",
        "NAME of it",
        "--top-k N 95% of them",
        "--seed N of the draws (0)",
        "--device DEVICE a CPU or a GPU (cpu)",
        "--folder PATH on the device",
        "--mode {a,b} how (a)",
        "--fast or slow",
    ):
        assert part in text
    assert "Args:" not in text
    assert "(False)" not in text
