"""The loss without logits is the loss: values and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from src.nn import cross_entropy as module
from src.nn import summed_cross_entropy


def case(rows, width, vocabulary, dtype=torch.float64, seed=0, ignored=0.3):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(vocabulary, width, generator=generator, dtype=dtype).requires_grad_()
    labels = torch.randint(vocabulary, (rows,), generator=generator)
    labels[torch.rand(rows, generator=generator) < ignored] = -100
    return hidden, weight, labels


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 9),
    st.integers(2, 30),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([0.0, 0.1, 0.9]),
    st.sampled_from([1, 8]),
    st.integers(0, 10**6),
)
def test_it_is_that_of_torch(rows, width, vocabulary, ignored, smoothing, alignment, seed):
    """In float64, cut into pieces of 7 rows, of which the last may be shorter; with any targets, or none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ALIGNMENT", {"cpu": alignment})
        patch.setattr(module, "FEWEST_ROWS", 7)
        patch.setattr(module, "LOGITS", {"cpu": 1})
        hidden, weight, labels = case(rows, width, vocabulary, seed=seed, ignored=ignored)
        bias = torch.linspace(-1, 1, vocabulary, dtype=torch.float64).requires_grad_()
        found = summed_cross_entropy(hidden, weight, labels, smoothing, bias)
        expected = cross_entropy(hidden @ weight.T + bias, labels, reduction="sum", label_smoothing=smoothing)
        torch.testing.assert_close(found, expected)
        to = hidden, weight, bias
        for a, b in zip(gradients(found * 3, *to), gradients(expected * 3, *to), strict=True):
            torch.testing.assert_close(a, b)


def test_what_is_ignored_is_so_where_it_is_not_left_out(monkeypatch):
    """On a device where rows are not left out; there are none here, so that the two questions are answered for one."""
    hidden, weight, labels = case(20, 5, 11)
    expected = cross_entropy(hidden @ weight.T, labels, reduction="sum", label_smoothing=0.1)

    class Elsewhere(torch.Tensor):
        @property
        def device(self):
            return torch.device("meta")

    logits = (hidden @ weight.T).detach()
    losses, gradient = module._rows(logits, labels.as_subclass(Elsewhere), 0.1, module.Shard(0, 11, None))
    torch.testing.assert_close(losses.as_subclass(torch.Tensor), expected)
    torch.testing.assert_close(gradient.as_subclass(torch.Tensor) @ weight, gradients(expected, hidden)[0])


def test_under_autocast_it_is_nearer_to_the_truth_than_that_of_torch():
    hidden, weight, labels = case(600, 64, 3000, torch.float32)
    exact = cross_entropy(hidden.double() @ weight.double().T, labels, reduction="sum")
    truth = gradients(exact, hidden, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = summed_cross_entropy(hidden, weight, labels)
        theirs = cross_entropy(torch.nn.functional.linear(hidden, weight), labels, reduction="sum")
    assert ours.dtype == torch.float32
    assert abs(ours - exact) <= abs(theirs - exact) * 1.1 + 1e-6 * exact
    for a, b, c in zip(gradients(ours, hidden, weight), gradients(theirs, hidden, weight), truth, strict=True):
        assert a.dtype == torch.float32
        assert (a - c).norm() <= (b - c).norm() * 1.1
        assert (a - c).norm() < 0.02 * c.norm()


def test_the_gradients_may_be_asked_for_twice_and_apart():
    hidden, weight, labels = case(10, 3, 7)
    loss = summed_cross_entropy(hidden, weight, labels)
    both = torch.autograd.grad(loss, (hidden, weight), retain_graph=True)
    again = torch.autograd.grad(2 * loss, (hidden, weight))
    assert all(torch.equal(2 * a, b) for a, b in zip(both, again, strict=True))
    alone = summed_cross_entropy(hidden.detach(), weight, labels)
    assert torch.equal(torch.autograd.grad(alone, weight)[0], both[1])
    assert not summed_cross_entropy(hidden.detach(), weight.detach(), labels).requires_grad


def test_all_logits_are_never_there_at_once():
    rows, vocabulary = 2048, 20_000
    hidden, weight, labels = case(rows, 16, vocabulary, torch.float32)
    most = 0

    class Watching(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal most
            found = function(*args, **(kwargs or {}))
            for tensor in found if isinstance(found, tuple) else (found,):
                if isinstance(tensor, torch.Tensor):
                    most = max(most, tensor.numel())
            return found

    with Watching():
        summed_cross_entropy(hidden, weight, labels).backward()
    assert most <= rows * vocabulary / 4
