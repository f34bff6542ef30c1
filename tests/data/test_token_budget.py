"""Batches by tokens: every row once, within the budget, the same work on every rank."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.batch_samplers import TokenBatchSampler

LENGTHS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=200).map(np.array)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(30, 200), st.integers(1, 4), st.integers(0, 5), st.booleans())
def test_each_row_is_in_one_batch_within_the_budget(lengths, max_tokens, world_size, epoch, shuffle):
    samplers = [
        TokenBatchSampler(lengths, max_tokens, seed=3, shuffle=shuffle, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    per_rank = [sampler.batches(epoch) for sampler in samplers]
    assert {len(batches) for batches in per_rank} == {len(samplers[0])}
    everything = np.concatenate([batch for batches in per_rank for batch in batches])
    assert sorted(everything[everything >= 0]) == list(range(len(lengths)))
    for batch in (batch for batches in per_rank for batch in batches):
        assert len(batch) * lengths[batch].max() <= max_tokens or len(batch) == 1
    assert sum(len(batch) for batches in per_rank for batch in batches if batch[0] < 0) < world_size


def test_ranks_work_on_batches_of_neighbouring_lengths():
    lengths = np.random.default_rng(0).integers(5, 60, (4000, 2))
    ranks = [TokenBatchSampler(lengths, 600, shuffle=True, rank=rank, world_size=2) for rank in range(2)]
    for a, b in zip(ranks[0].batches(1), ranks[1].batches(1), strict=True):
        if b[0] >= 0:
            assert abs(lengths[a].max() - lengths[b].max()) <= 3


def test_an_epoch_has_another_order_and_the_same_shapes():
    lengths = np.random.default_rng(0).integers(1, 20, (500, 2))
    sampler = TokenBatchSampler(lengths, 100, seed=1, shuffle=True)
    first, second = sampler.batches(0), sampler.batches(1)

    def shapes(batches):
        return sorted((len(batch), *lengths[batch].max(0).tolist()) for batch in batches)

    assert shapes(first) == shapes(second)
    assert [batch.tolist() for batch in first] != [batch.tolist() for batch in second]
    assert {tuple(sorted(batch)) for batch in first} != {tuple(sorted(batch)) for batch in second}
    again = TokenBatchSampler(lengths, 100, seed=1, shuffle=True).batches(1)
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in second]


def test_little_is_padding():
    rng = np.random.default_rng(0)
    source = rng.poisson(14, 20_000) + 2
    lengths = np.stack([source, np.maximum(2, source + rng.integers(-4, 5, len(source)))], 1)
    batches = TokenBatchSampler(lengths, 4096, shuffle=True).batches(0)
    padded = sum(len(batch) * lengths[batch].max(0).sum() for batch in batches)
    assert lengths.sum() / padded > 0.93


def test_a_resumed_epoch_goes_on_where_it_was():
    lengths = np.random.default_rng(0).integers(1, 20, (300, 2))
    sampler = TokenBatchSampler(lengths, 100, seed=1, shuffle=True)
    sampler.set_epoch(2)
    whole = list(sampler)
    sampler.position = 7
    assert list(sampler) == whole[7:]
    assert len(sampler) == len(whole)
