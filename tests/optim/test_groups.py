"""Weight decay is for the matrices alone, and each kind of parameter has its learning rate."""

import pytest
import torch

from src.errors import InputError
from src.models import GPT, GPTConfig
from src.optim import GroupOptions, Momentum, Muon, parameter_groups, scale_rates


@pytest.mark.parametrize("of_embeddings", [0.0, 0.2])
@pytest.mark.parametrize("tied", [True, False])
def test_biases_norms_and_unless_asked_for_embeddings_are_not_decayed(tied, of_embeddings):
    gpt = GPT(GPTConfig(vocab_size=11, max_seq_len=8, d_model=8, n_heads=2, n_layers=2, tie_embeddings=tied))
    names = {id(p): name for name, p in gpt.named_parameters()}
    groups = parameter_groups(gpt, GroupOptions(embeddings_weight_decay=of_embeddings))
    decayed, undecayed = (
        [names[id(p)] for group in groups if bool(group.get("weight_decay", 0.1)) is kind for p in group["params"]]
        for kind in (True, False)
    )
    linear = ["attention.qkv", "attention.out", "feed_forward.up", "feed_forward.down"]
    expected = {f"blocks.{i}.{name}.weight" for i in range(2) for name in linear}
    embeddings = {"token_embedding.weight", "position_embedding.weight"} if of_embeddings else set()
    assert set(decayed) == expected | embeddings | (set() if tied else {"head.weight"})
    assert set(decayed) | set(undecayed) == set(names.values())
    assert len(decayed) + len(undecayed) == len(names)
    hidden = {names[id(p)] for group in groups if group["hidden"] for p in group["params"]}
    assert hidden == expected


SCALES = {"matrices": 0.5, "head": 2.0, "embeddings": 3.0, "vectors": 0.25}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW, Muon])
@pytest.mark.parametrize("kinds", [["embeddings"], ["vectors"], ["matrices", "head"], list(SCALES)])
def test_each_kind_moves_by_its_rate(optimizer, kinds, tied):
    scales = {kind: SCALES[kind] for kind in kinds}
    moves = []
    for chosen in (GroupOptions(), GroupOptions(**{f"{kind}_lr_scale": scale for kind, scale in scales.items()})):
        torch.manual_seed(0)
        shape = GPTConfig(vocab_size=11, max_seq_len=8, d_model=8, n_heads=2, n_layers=2, tie_embeddings=tied)
        gpt = GPT(shape).double()
        before = {name: p.detach().clone() for name, p in gpt.named_parameters()}
        made = optimizer(parameter_groups(gpt, chosen), lr=0.01, weight_decay=0.1)
        scale_rates(made)
        for p in gpt.parameters():
            p.grad = torch.randn_like(p)
        made.step()
        moves.append({name: p.detach() - before[name] for name, p in gpt.named_parameters()})
    for name, move in moves[0].items():
        kind = "head" if name.startswith("head") else "embeddings" if "embedding" in name else "matrices"
        kind = kind if move.dim() == 2 else "vectors"
        torch.testing.assert_close(moves[1][name], move * scales.get(kind, 1.0), msg=name)


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e300, float("nan"), float("inf")])
def test_a_rate_is_above_0_and_finite(scale):
    with pytest.raises(ValueError, match=r"groups\.vectors_lr_scale is .*: it must be above 0 and at most 1,000,000"):
        GroupOptions(vectors_lr_scale=scale)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, Momentum, torch.optim.Adadelta, torch.optim.Muon])
def test_mup_is_refused_where_it_has_no_rule(optimizer):
    """Whose steps grow with the gradient, or are otherwise not of Adam's size."""
    for width in (8, 4):  # at the width of which the rates were chosen, nothing is scaled
        gpt = GPT(GPTConfig(vocab_size=11, max_seq_len=8, d_model=8, n_heads=2, n_layers=1, mup_width=width))
        groups = parameter_groups(gpt)[:1]
        if width == 8:
            scale_rates(optimizer(groups, lr=0.1))
        else:
            with pytest.raises(InputError, match=rf"mup_width has no rule for {optimizer.__name__}.*choose AdamW"):
                scale_rates(optimizer(groups, lr=0.1))


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
