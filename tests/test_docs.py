"""What docs/activations.md and docs/optimizers.md say: every formula and every number, run beside the code."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import src.optim
from src.nn import ACTIVATIONS, GATED, FeedForward, activation
from src.optim.orthogonalize import orthogonalize

DOCS = Path(__file__).parents[1] / "docs"
PLAIN = [name for name in ACTIVATIONS if name not in GATED]
E = torch.float64


def section(page: str, title: str) -> str:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)[1]


def rows(page: str, title: str) -> dict[str, list[str]]:
    """The rows of a section's tables by the word in their first column."""
    lines = [line for line in section(page, title).splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {first.strip("` "): rest for first, *rest in cells}


def slopes(name: str, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.clone().requires_grad_()
    y = activation(name).double()(x)
    return y.detach(), torch.autograd.grad(y.sum(), x)[0]


def evaluate(formula: str, x: float) -> float:
    """A formula of the page with the names that it defines, themselves read off the page."""
    defined = dict(re.findall(r"(σ|Φ|φ) (?:is|the|its)[^`]*`([^`]+)`", section("activations.md", "Formulas")))
    names = {name: getattr(math, name) for name in ("exp", "erf", "sqrt", "tanh", "pi")} | {"max": max, "a": 0.25}
    for name, body in defined.items():
        names[name] = lambda x, body=body: eval(body, {**names, "x": x})
    for name in ("k", "t"):
        body = re.search(rf"`{name}` is `([^`]+)`", section("activations.md", "Formulas"))[1]
        names[name] = eval(body, {**names, "x": x})
    return eval(formula.strip("`"), {**names, "x": x})


@pytest.mark.parametrize("name", PLAIN)
def test_the_formulas_of_the_activations(name):
    value, derivative = rows("activations.md", "Formulas")[name]
    x = torch.arange(-8, 8, 0.25, dtype=E) + 0.125
    y, slope = slopes(name, x)
    for xi, yi, di in zip(x.tolist(), y.tolist(), slope.tolist(), strict=True):
        assert evaluate(value, xi) == pytest.approx(yi, abs=1e-12)
        assert evaluate(derivative, xi) == pytest.approx(di, abs=1e-12)


def number(text: str) -> float:
    return float(text.replace("−", "-").replace("∞", "inf"))


@pytest.mark.parametrize("name", PLAIN)
def test_the_numbers_of_the_activations(name):
    given_range, *cells = rows("activations.md", "Numbers")[name]
    (below, one), (slope_below, slope_of_one) = (both.tolist() for both in slopes(name, torch.tensor([-1, 1], dtype=E)))
    values, grid_slopes = slopes(name, torch.linspace(-15, 15, 120_001, dtype=E))
    grows = grid_slopes.max() > grid_slopes[20_000:-20_000].max() + 1  # beyond all bounds
    highest = math.inf if grows else grid_slopes.max().item()
    found = [below, slope_below, one, slope_of_one, grid_slopes.min().item(), highest]
    # as precise as it is printed
    assert [number(cell) for cell in cells] == pytest.approx(found, abs=5.001e-4)
    left, low, high, right = re.fullmatch(r"([\[(])(\S+), (\S+)([\])])", given_range).groups()
    inner = values[20_000:-20_000]  # from -10 to 10
    for bracket, bound, all_of_it, within in (
        (left, number(low), values.min().item(), inner.min().item()),
        (right, number(high), values.max().item(), inner.max().item()),
    ):
        if math.isfinite(bound):
            assert all_of_it == pytest.approx(bound, abs=5.001e-4)
        else:
            assert abs(all_of_it) > abs(within) + 0.04
        # a value that is taken is taken near the origin already; a limit comes nearer and nearer
        assert (bracket in "[]") == (all_of_it == within)


def test_the_tables_have_every_activation():
    assert list(rows("activations.md", "Numbers")) == PLAIN
    assert list(rows("activations.md", "Which one")) == [*PLAIN[4:6], *PLAIN[:4], *PLAIN[6:], *GATED]
    assert set(rows("activations.md", "Formulas")) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", GATED)
def test_the_formulas_of_the_gated_networks(name):
    network, x = FeedForward(4, 6, name).double(), torch.randn(3, 4, dtype=E)
    parts = {part: getattr(network, part) for part in ("up", "gate", "down")}
    formula = rows("activations.md", "Formulas")[name][0].strip("`")
    given = eval(formula, {**parts, "x": x, "swish": activation("swish"), "gelu": activation("gelu")})
    torch.testing.assert_close(network(x), given)


RULES = dict(
    re.findall(r"^### `(\w+)`.*?```python\n(.*?)```", section("optimizers.md", "Rules"), re.DOTALL | re.MULTILINE)
)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    return orthogonalize(matrix).to(matrix.dtype)


@pytest.mark.parametrize("name", RULES)
def test_the_rules_of_the_optimizers(name):
    kind = getattr(src.optim, name, None) or getattr(torch.optim, name)
    start = torch.randn(4, 3, dtype=E, generator=torch.Generator().manual_seed(0))
    weight = nn.Parameter(start.clone())
    decay = {"weight_decay": 0.1} if re.search(r"\bwd\b", RULES[name]) else {}
    optimizer = kind([{"params": [weight], "hidden": True}], lr=0.02, **decay)
    settings = optimizer.param_groups[0]
    beta1, beta2 = settings.get("betas", (0.0, 0.0))
    zeros = dict.fromkeys("vmsu", torch.zeros_like(start))
    state = {"w": start, **zeros, "product": 1.0, "beta1": beta1, "beta2": beta2, "lr": 0.02, "wd": 0.1}
    state |= {key: settings[key] for key in ("momentum", "alpha", "rho", "eps") if key in settings}
    # of whole matrices and of numbers
    state |= {"sqrt": lambda x: x**0.5, "sign": torch.sign, "orthogonal": orthogonal, "rows": 4, "columns": 3}
    gradients = torch.randn(12, 4, 3, dtype=E, generator=torch.Generator().manual_seed(1))
    for t, gradient in enumerate(gradients, start=1):
        weight.grad = gradient.clone()
        optimizer.step()
        state |= {"g": gradient, "t": t}
        exec(RULES[name], state)
        torch.testing.assert_close(weight.detach(), state["w"], msg=f"{name} at step {t}")


def test_the_page_has_every_optimizer_and_schedule():
    classes = {name: value for name, value in vars(src.optim).items() if isinstance(value, type)}
    schedules = {name for name, value in classes.items() if issubclass(value, src.optim.Schedule)} - {"Schedule"}
    assert set(rows("optimizers.md", "Schedules")) == schedules
    own = {name for name, value in classes.items() if issubclass(value, torch.optim.Optimizer)}
    assert set(RULES) == own | {"SGD", "Adagrad", "RMSprop", "Adadelta", "Adam", "NAdam", "AdamW"}
