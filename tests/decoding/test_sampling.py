"""Sampling: cached equals uncached, batched equals alone, and the filters against brute force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.decoding import filter_logits, generate, left_pad, stream
from src.models import GPT, GPTConfig


def model(max_seq_len=32) -> GPT:
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocab_size=31, max_seq_len=max_seq_len, d_model=32, n_heads=4, n_layers=2))
    for parameter in gpt.parameters():  # far from uniform, so that the likeliest token is clear
        parameter.data.mul_(4)
    return gpt.eval()


PROMPTS = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8), min_size=1, max_size=4)


@settings(max_examples=20, deadline=None)
@given(PROMPTS, st.sampled_from([0.0, 1.0]), st.sampled_from([12, 32]))
def test_cached_equals_uncached(prompts, temperature, context):
    """Also where the context runs full and is read anew from its later half."""
    runs = [
        generate(
            model(context),
            prompts,
            max_new_tokens=20,
            temperature=temperature,
            use_cache=use_cache,
            generator=torch.Generator().manual_seed(0),
        )
        for use_cache in (True, False)
    ]
    assert runs[0] == runs[1]
    assert all(len(row) == 20 for row in runs[0])


@settings(max_examples=20, deadline=None)
@given(PROMPTS)
def test_unequal_prompts_as_one_batch_equal_each_alone(prompts):
    together = generate(model(), prompts, max_new_tokens=16, temperature=0)
    alone = [generate(model(), [prompt], max_new_tokens=16, temperature=0)[0] for prompt in prompts]
    assert together == alone


def test_greedy_takes_the_likeliest_token_at_each_step():
    gpt, row = model(), [1, 2, 3]
    with torch.no_grad():
        for _ in range(10):
            row.append(gpt(torch.tensor([row]))[0, -1].argmax().item())
    assert generate(gpt, [[1, 2, 3]], max_new_tokens=10, temperature=0) == [row[3:]]


def test_a_row_ends_at_the_end_token_and_the_others_go_on():
    free = generate(model(), [[1, 2], [5]], max_new_tokens=10, temperature=0)
    eos = free[0][4]
    ended = generate(model(), [[1, 2], [5]], max_new_tokens=10, temperature=0, eos_id=eos)
    assert ended == [row[: row.index(eos)] if eos in row else row for row in free]


def test_the_seed_decides():
    def draw(seed):
        return generate(model(), [[1]], max_new_tokens=12, generator=torch.Generator().manual_seed(seed))

    assert draw(0) == draw(0)
    assert len({str(draw(seed)) for seed in range(5)}) > 1


def test_left_padding():
    input_ids, attention_mask = left_pad([[1, 2, 3], [4]], pad_id=9)
    assert input_ids.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert attention_mask.tolist() == [[1, 1, 1], [0, 0, 1]]


@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=12, unique=True), st.integers(1, 12))
def test_top_k_keeps_the_k_likeliest(values, k):
    kept = filter_logits(torch.tensor([values]), top_k=k).isfinite()[0]
    assert [v for v, keep in zip(values, kept, strict=True) if keep] == [
        v for v in values if v in sorted(values)[-min(k, len(values)) :]
    ]


@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=12, unique=True), st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_set_that_reaches_p(values, p):
    probabilities = torch.tensor(values).double().softmax(-1)
    kept = filter_logits(torch.tensor([values]).double(), top_p=p).isfinite()[0]
    least_kept = probabilities[kept].min()
    assert (probabilities[kept].sum() >= p - 1e-9) or kept.all()
    assert probabilities[kept].sum() - least_kept < p + 1e-9  # without its least likely token it falls short of p
    assert not (~kept).any() or probabilities[~kept].max() <= least_kept


def test_sampling_follows_the_probabilities():
    gpt, n = model(), 20_000
    with torch.no_grad():
        expected = (gpt(torch.tensor([[1, 2]]))[0, -1] / 0.7).softmax(-1)
    (tokens,) = stream(
        gpt, torch.tensor([[1, 2]] * n), max_new_tokens=1, temperature=0.7, generator=torch.Generator().manual_seed(0)
    )
    observed = torch.bincount(tokens, minlength=31) / n
    deviation = (expected * (1 - expected) / n).sqrt()
    assert ((observed - expected).abs() < 5 * deviation + 1e-9).all()


def test_a_prompt_longer_than_the_context():
    with pytest.raises(ValueError, match="a prompt of 33 tokens is longer than the context of 32"):
        generate(model(), [[1] * 33], max_new_tokens=1)
