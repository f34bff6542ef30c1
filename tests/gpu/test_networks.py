"""Networks, their loss and decoding on CUDA are those of a CPU."""

import copy
import inspect

import pytest
import torch
from torch.nn.functional import cross_entropy

from src.decoding import beam_search, generate, greedy_search
from src.nn import BlockConfig, KVCache, Mask, SelfAttention, summed_cross_entropy
from src.nn import cross_entropy as module
from tests.nn.test_cross_entropy import case
from tests.random_networks import CONFIGS, checkpoint_of, padded

pytestmark = pytest.mark.gpu

LENGTHS = [12, 9, 5]


def arguments(model) -> dict[str, torch.Tensor]:
    """A padded batch of what a network's forward pass must be given, and its labels if it takes any."""
    ids, mask = padded(LENGTHS, max(LENGTHS), model.config.vocab_size)
    names = inspect.signature(model.steps).parameters
    given = {"input_ids": ids, "attention_mask": mask}
    if "decoder_input_ids" in names:
        given["decoder_input_ids"] = padded(LENGTHS[::-1], 12, model.config.vocab_size, seed=1)[0]
    if "labels" in names:
        given["labels"] = given.get("decoder_input_ids", ids).masked_fill(mask == 0, -100)
    return given


def outputs(model, given, device):
    """Logits or vectors, losses, and the gradients of the network, on the CPU again."""
    model = copy.deepcopy(model).to(device)
    given = {name: tensor.to(device) for name, tensor in given.items()}
    labels = given.pop("labels", None)
    found = [model(**given)] if labels is None else [model(**given), model(**given, labels=labels)]
    tensors = [t for one in found for t in (one if isinstance(one, tuple) else [one]) if t is not None]
    sum(t.float().square().mean() for t in tensors).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [t.detach().cpu() for t in tensors], [g.cpu() for g in gradients]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_network_is_that_of_a_cpu(name):
    model = checkpoint_of(name)[0]
    given = arguments(model)
    (here, gradients_here), (there, gradients_there) = (outputs(model, given, device) for device in ("cpu", "cuda"))
    for a, b in zip(there, here, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    for a, b in zip(gradients_there, gradients_here, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3 * max(1, b.abs().max().item()), rtol=1e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_in_pieces_is_that_of_a_cpu(smoothing, monkeypatch):
    monkeypatch.setattr(module, "FEWEST_ROWS", 7)
    monkeypatch.setattr(module, "LOGITS_ELSEWHERE", 1)
    hidden, weight, labels = case(40, 9, 30)
    bias = torch.linspace(-1, 1, 30, dtype=torch.float64).requires_grad_()
    expected = cross_entropy(hidden @ weight.T + bias, labels, reduction="sum", label_smoothing=smoothing)
    wanted = torch.autograd.grad(expected, (hidden, weight, bias))
    there = [tensor.detach().cuda().requires_grad_() for tensor in (hidden, weight, bias)]
    found = summed_cross_entropy(there[0], there[1], labels.cuda(), smoothing, there[2])
    torch.testing.assert_close(found.cpu(), expected)
    for a, b in zip(torch.autograd.grad(found, there), wanted, strict=True):
        torch.testing.assert_close(a.cpu(), b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_loss_under_autocast_is_near(dtype):
    hidden, weight, labels = case(600, 64, 3000, torch.float32)
    exact = cross_entropy(hidden.double() @ weight.double().T, labels, reduction="sum")
    wanted = torch.autograd.grad(exact, (hidden, weight))
    there = [tensor.detach().cuda().requires_grad_() for tensor in (hidden, weight)]
    with torch.autocast("cuda", dtype=dtype):
        found = summed_cross_entropy(*there, labels.cuda())
    assert found.dtype == torch.float32
    assert abs(found.item() - exact.item()) < 1e-2 * exact.item()
    for a, b in zip(torch.autograd.grad(found, there), wanted, strict=True):
        assert a.dtype == torch.float32
        assert (a.cpu() - b).norm() < 0.02 * b.norm()


@pytest.mark.parametrize("use_cache", [True, False])
def test_text_is_that_of_a_cpu(use_cache):
    """Greedily, with prompts of unequal lengths and a context that runs full."""
    model, prompts = checkpoint_of("gpt")[0], [[5, 6, 7, 8], [9], [10, 11]]
    settings = {"max_new_tokens": 30, "temperature": 0, "use_cache": use_cache}
    here = generate(model, prompts, **settings)
    assert generate(model.cuda(), prompts, **settings) == here
    assert all(len(row) == 30 for row in here)


def test_translations_are_those_of_a_cpu():
    model = checkpoint_of("transformer")[0]
    batch = padded(LENGTHS, max(LENGTHS), model.config.vocab_size)
    ends = {"start_id": 0, "end_id": 1}
    here = greedy_search(model, *batch, **ends), beam_search(model, *batch, **ends, beam=3)
    model, batch = model.cuda(), [tensor.cuda() for tensor in batch]
    there = greedy_search(model, *batch, **ends), beam_search(model, *batch, **ends, beam=3)
    assert there[0] == here[0]
    assert [[best.ids for best in found] for found in there[1]] == [[best.ids for best in found] for found in here[1]]
    for found, wanted in zip(there[1], here[1], strict=True):
        assert [best.score for best in found] == pytest.approx([best.score for best in wanted], abs=1e-3)


@pytest.mark.parametrize("kernel", ["dense", "flash"])
def test_a_cache_gives_what_all_tokens_at_once_give(kernel):
    """In half precision; decoding of one token behind a cache is by the dense kernel, whichever trains."""
    torch.manual_seed(0)
    layer = SelfAttention(BlockConfig(d_model=64, n_heads=4, attention=kernel)).cuda().bfloat16().eval()
    x = torch.randn(2, 12, 64, device="cuda", dtype=torch.bfloat16)
    cache = KVCache(12)
    with torch.no_grad():
        whole = layer(x, Mask(12, True))
        parts = [layer(x[:, :8], Mask(8, True), cache)]
        parts += [layer(x[:, i : i + 1], Mask(i + 1, True, i), cache) for i in range(8, 12)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=2e-2, rtol=2e-2)
