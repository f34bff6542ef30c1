"""An epoch that goes on with other ranks or larger batches: the rows that are left, each once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from src.data.batch_samplers import PADDING, BucketBatchSampler, EpochBatchSampler, TokenBatchSampler

LENGTHS = np.random.default_rng(0).integers(1, 30, (300, 2))
# by kind: makes the sampler of a rank over n rows, with batches of some size
KINDS = {
    "rows": lambda n, size, **ranks: EpochBatchSampler(n, size, shuffle=True, **ranks),
    "buckets": lambda n, size, **ranks: BucketBatchSampler(n, size, lambda _, indices: LENGTHS[indices, 0], **ranks),
    "tokens": lambda n, size, **ranks: TokenBatchSampler(LENGTHS[:n], 30 * size, shuffle=True, **ranks),
}
division = st.tuples(st.integers(1, 4), st.integers(1, 5))  # ranks, and the size of their batches


@given(
    st.sampled_from(list(KINDS)),
    st.integers(1, 300),
    st.lists(st.tuples(division, st.floats(0, 1)), min_size=2, max_size=4),
)
def test_each_row_is_seen_once_however_often_the_ranks_change(kind, n, parts):
    state, seen = None, []
    for (world, size), fraction in parts:
        samplers = [KINDS[kind](n, size, rank=rank, world_size=world) for rank in range(world)]
        if state is None:
            for sampler in samplers:
                sampler.set_epoch(3)
        else:
            for sampler in samplers:
                sampler.load_state_dict(state)
        total = len(samplers[0])
        left = [list(sampler) for sampler in samplers]
        assert {len(batches) for batches in left} == {total - (samplers[0].position - samplers[0].first)}
        taken = int(fraction * len(left[0]))
        seen += [row for batches in left for batch in batches[:taken] for _, row in batch if row != PADDING]
        for sampler in samplers:
            sampler.position += taken
        state = samplers[0].state_dict()
    rest = [KINDS[kind](n, 2, rank=rank, world_size=3) for rank in range(3)]
    for sampler in rest:
        sampler.load_state_dict(state)
        seen += [row for batch in sampler for _, row in batch if row != PADDING]
    assert sorted(seen) == list(range(n))
    rest[0].set_epoch(4)  # is divided as if nothing had happened
    fresh = KINDS[kind](n, 2, rank=0, world_size=3)
    fresh.set_epoch(4)
    assert list(rest[0]) == list(fresh)


def test_two_ranks_go_on_as_one_with_batches_of_twice_the_size():
    two = EpochBatchSampler(50, 2, shuffle=True, rank=1, world_size=2)
    two.position = 5
    one = EpochBatchSampler(50, 4, shuffle=True)
    one.load_state_dict(two.state_dict())
    whole = EpochBatchSampler(50, 4, shuffle=True)
    assert list(one) == list(whole)[5:]
    assert one.first == 0
