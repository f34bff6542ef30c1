"""A network built on the meta device gets the weights that building it on the CPU gives, a parameter at a time."""

import pytest
import torch
from torch import nn

from src.architectures import architectures
from src.distributed.materialize import materialize
from tests.random_networks import CONFIGS

CPU = torch.device("cpu")


def on_meta(build):
    with torch.device("meta"):
        return build()


def both(build, initial=None):
    """A network as it is built, and one that was materialized; the random numbers go on alike after both."""
    torch.manual_seed(3)
    expected = (initial or build)()
    following = torch.rand(1)
    torch.manual_seed(3)
    found = on_meta(build)
    made = []
    materialize(found, build, lambda: made.append((initial or build)()) or made[-1], CPU)
    assert torch.equal(torch.rand(1), following)
    return expected, found, made


def in_memory(made):
    """The bytes of what was built to take the weights from: each parameter was freed when the next one was begun."""
    return sum(p.untyped_storage().nbytes() for p in made[0].parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_has_its_initial_weights(name):
    expected, found, made = both(lambda: architectures()[name.split()[0]].network(CONFIGS[name]))
    assert {p.device for p in found.parameters()} == {CPU}
    for key, weight in expected.state_dict().items():
        assert torch.equal(found.state_dict()[key], weight), key
    for key, buffer in expected.named_buffers():
        assert torch.equal(dict(found.named_buffers())[key], buffer), key
    assert in_memory(made) == 0


class Loaded(nn.Module):
    """Scales its parameters as it is made, and has one that is given with its values."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.rand(3))
        nn.init.normal_(self.second.weight)
        self.second.weight.data.mul_(0.5)[0].fill_(7.0)


class Copied(Loaded):
    """Fills one parameter by another, for which both must be in memory."""

    def __init__(self):
        super().__init__()
        self.first.weight.data[:2] = self.second.weight.data


@pytest.mark.parametrize("build", [Loaded, Copied])
def test_so_has_a_network_of_ones_own_however_it_initialises_itself(build):
    expected, found, made = both(build)
    for key, weight in expected.state_dict().items():
        assert torch.equal(found.state_dict()[key], weight), key
    assert (in_memory(made) == 0) == (build is Loaded)


def test_weights_of_a_checkpoint_are_taken_over():
    weights = {name: torch.full_like(p, i) for i, (name, p) in enumerate(Loaded().named_parameters())}

    def initial():
        network = Loaded()
        network.load_state_dict(weights)
        return network

    _, found, made = both(Loaded, initial)
    for key, weight in weights.items():
        assert torch.equal(found.state_dict()[key], weight), key
    assert in_memory(made) == 0


def test_a_network_that_has_weights_keeps_them():
    network = Loaded()
    before = network.first.weight.clone()
    materialize(network, Loaded, Loaded, CPU)
    assert torch.equal(network.first.weight, before)
