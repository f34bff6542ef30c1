"""This project's own optimizers against their papers, and every optimizer and schedule by a word in a configuration."""

import copy
import inspect
import math

import pytest
import torch
import yaml
from torch import nn
from torch.optim import _muon

from src.errors import InputError
from src.models import GPT, GPTConfig
from src.nn import ACTIVATIONS
from src.optim import Lion, Momentum, Muon, Nesterov, parameter_groups
from src.optim.orthogonalize import orthogonalize
from tests.distributed.jobs import losses, write_config


def gradients(steps: int, shape: tuple[int, ...] = (5,)) -> torch.Tensor:
    return torch.randn(steps, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def trajectory(optimizer_class, steps, **settings):
    weight = nn.Parameter(torch.linspace(-1, 1, 5, dtype=torch.float64))
    optimizer, weights = optimizer_class([weight], **settings), []
    for gradient in steps:
        weight.grad = gradient.clone()
        optimizer.step()
        weights.append(weight.detach().clone())
    return torch.stack(weights)


def test_lion_is_algorithm_2_of_its_paper():
    steps, lr, decay, b1, b2 = gradients(20), 0.03, 0.2, 0.8, 0.95
    w, m, expected = torch.linspace(-1, 1, 5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64), []
    for g in steps:
        c = b1 * m + (1 - b1) * g
        w = w - lr * (c.sign() + decay * w)
        m = b2 * m + (1 - b2) * g
        expected.append(w)
    found = trajectory(Lion, steps, lr=lr, betas=(b1, b2), weight_decay=decay)
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize(("kind", "ahead"), [(Momentum, False), (Nesterov, True)])
def test_momentum_and_nesterov(kind, ahead):
    steps, lr, mu = gradients(20), 0.03, 0.8
    w, v, expected = torch.linspace(-1, 1, 5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64), []
    for g in steps:
        v = mu * v + g
        w = w - lr * (g + mu * v if ahead else v)
        expected.append(w)
    torch.testing.assert_close(trajectory(kind, steps, lr=lr, momentum=mu), torch.stack(expected))


@pytest.mark.parametrize("kind", [Lion, Momentum, Muon, Nesterov])
@pytest.mark.parametrize("name", ["lr", "weight_decay", "momentum", "betas"])
def test_what_cannot_be_is_refused(kind, name):
    is_rate = name in ("lr", "weight_decay")
    for value in (-1.0, math.nan, math.inf if is_rate else 1.0):
        if name in inspect.signature(kind).parameters:
            settings = {name: (0.9, value) if name == "betas" else value}
            with pytest.raises(InputError, match=f"{kind.__name__}: {name} is {value}: it must be at least 0"):
                kind([{"params": [nn.Parameter(torch.zeros(1, 1))], "hidden": True}], **settings)


def tiny() -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size=11, max_seq_len=8, d_model=8, n_heads=2, n_layers=2, tie_embeddings=False))


def step(model: GPT, optimizers: list[torch.optim.Optimizer], seed: int) -> None:
    ids = torch.randint(11, (2, 8), generator=torch.Generator().manual_seed(seed))
    model.eval().zero_grad()
    nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    for optimizer in optimizers:
        optimizer.step()


def test_muon_steps_the_blocks_matrices_and_adamw_all_else(monkeypatch):
    """Beside torch's own of each kind, where torch's Muon is kept from rounding to bfloat16."""
    monkeypatch.setattr(_muon, "_zeropower_via_newtonschulz", lambda gradient, *_: orthogonalize(gradient))
    together, apart = tiny(), tiny()
    optimizer = Muon(parameter_groups(together), lr=0.01, weight_decay=0.2)
    hidden = [p for name, p in apart.named_parameters() if name.startswith("blocks.") and p.dim() == 2]
    rest = [p for name, p in apart.named_parameters() if not (name.startswith("blocks.") and p.dim() == 2)]
    decayed = [{"params": [apart.head.weight]}, {"params": [p for p in rest if p is not apart.head.weight]}]
    decayed[1]["weight_decay"] = 0.0
    two = [
        torch.optim.Muon(hidden, 0.01, 0.2, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(decayed, 0.01, (0.9, 0.95), weight_decay=0.2),
    ]
    for seed in range(5):
        step(together, [optimizer], seed)
        step(apart, two, seed)
    for (name, a), b in zip(together.named_parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


@pytest.mark.parametrize("shape", [(8, 8), (12, 5), (5, 12)])
def test_orthogonalize_keeps_the_singular_vectors_and_brings_the_values_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, values, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm()
    for _ in range(5):  # the quintic polynomial on the values alone
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    torch.testing.assert_close(orthogonalize(matrix).double(), u * values @ v, atol=1e-4, rtol=0)
    assert values.min() > 0.5
    assert values.max() < 1.25


def test_muon_goes_on_from_its_state():
    model = tiny()
    optimizer = Muon(parameter_groups(model))
    for seed in range(3):
        step(model, [optimizer], seed)
    again = copy.deepcopy(model)
    resumed = Muon(parameter_groups(again), lr=7.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in range(3, 6):
        step(model, [optimizer], seed)
        step(again, [resumed], seed)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


# word in a configuration -> a learning rate for a tiny network
OPTIMIZERS = {
    "SGD": 0.3,
    "Momentum": 0.05,
    "Nesterov": 0.05,
    "Adagrad": 0.03,
    "RMSprop": 0.003,
    "Adam": 0.01,
    "Adadelta": 30.0,  # its own first steps are tiny
    "NAdam": 0.01,
    "AdamW": 0.01,
    "Muon": 0.01,
    "Lion": 0.003,
}
SCHEDULES = {
    "Constant": {},
    "Linear": {"warmup_steps": 3},
    "Cosine": {"warmup_steps": 3, "final_factor": 0.1},
    "WarmupStableDecay": {"warmup_steps": 3, "decay_steps": 6},
    "InverseSquareRoot": {"warmup_steps": 3},
}
KINDS = ("gpt", "bert", "transformer")
# each of them at least once, with each model a third of them; the others take as long again and again
SOME = [(name, list(SCHEDULES)[i % 5], list(ACTIVATIONS)[i], KINDS[i % 3]) for i, name in enumerate(OPTIMIZERS)]
ALL = [(name, "Cosine", "gelu", kind) for name in OPTIMIZERS for kind in KINDS]
ALL += [("AdamW", name, "gelu", kind) for name in SCHEDULES for kind in KINDS]
ALL += [("AdamW", "Cosine", name, kind) for name in ACTIVATIONS for kind in KINDS]


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    return {kind: write_config(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.mark.parametrize(
    ("optimizer", "schedule", "activation", "kind"),
    [*SOME, *(pytest.param(*case, marks=pytest.mark.slow) for case in ALL)],
)
def test_it_trains_by_configuration_alone(run, configs, tmp_path, optimizer, schedule, activation, kind):
    layer = {
        "model": {
            "init_args": {
                "config": {"activation": activation},
                "optimizer": {"class_path": optimizer, "init_args": {"lr": OPTIMIZERS[optimizer]}},
                "schedule": {"class_path": schedule, "init_args": SCHEDULES[schedule]},
            }
        },
        "data": {"init_args": {"max_tokens": 128} if kind == "transformer" else {"batch_size": 8}},
        "trainer": {
            "max_steps": 24,
            "accumulate_grad_batches": 1,
            "limit_val_batches": 0,
            "default_root_dir": str(tmp_path / "logs"),
        },
    }
    (tmp_path / "layer.yaml").write_text(yaml.safe_dump(layer))
    status, _, err = run("fit", "--config", configs[kind], "--config", tmp_path / "layer.yaml")
    assert status == 0, err
    found = losses(tmp_path / "logs" / kind / "version_0")
    assert all(map(math.isfinite, found))
    assert sum(found[-4:]) < sum(found[:4]) * 0.99, found
