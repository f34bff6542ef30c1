"""Weight decay is for the matrices alone."""

import pytest
import torch

from src.models import GPT, GPTConfig
from src.optim import parameter_groups


@pytest.mark.parametrize("tied", [True, False])
def test_biases_norms_and_embeddings_are_not_decayed(tied):
    gpt = GPT(GPTConfig(vocab_size=11, max_seq_len=8, d_model=8, n_heads=2, n_layers=2, tie_embeddings=tied))
    names = {id(p): name for name, p in gpt.named_parameters()}
    groups = parameter_groups(gpt)
    decayed, undecayed = (
        [names[id(p)] for group in groups if ("weight_decay" not in group) is kind for p in group["params"]]
        for kind in (True, False)
    )
    linear = ["attention.qkv", "attention.out", "feed_forward.up", "feed_forward.down"]
    expected = {f"blocks.{i}.{name}.weight" for i in range(2) for name in linear}
    assert set(decayed) == expected | (set() if tied else {"head.weight"})
    assert set(decayed) | set(undecayed) == set(names.values())
    assert len(decayed) + len(undecayed) == len(names)
    hidden = {names[id(p)] for group in groups if group["hidden"] for p in group["params"]}
    assert hidden == expected


def test_frozen_parameters_are_left_out():
    gpt = GPT(GPTConfig(vocab_size=11, max_seq_len=8, d_model=8, n_heads=2, n_layers=1))
    gpt.token_embedding.requires_grad_(False)
    ids = {id(p) for group in parameter_groups(gpt) for p in group["params"]}
    assert id(gpt.token_embedding.weight) not in ids


def test_an_optimizer_decays_as_grouped():
    layer = torch.nn.Linear(4, 4)
    before = [p.detach().clone() for p in layer.parameters()]
    optimizer = torch.optim.AdamW(parameter_groups(layer), lr=0.1, weight_decay=0.5)
    for p in layer.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(layer.weight, before[0] * (1 - 0.1 * 0.5))
    assert torch.equal(layer.bias, before[1])
