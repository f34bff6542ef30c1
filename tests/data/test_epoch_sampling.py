"""Batches of an epoch: each row once, whatever the ranks, and from any position on."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from src.data.batch_samplers import PADDING, EpochBatchSampler
from src.data.seekable import permute

items, sizes, worlds = st.integers(1, 200), st.integers(1, 17), st.integers(1, 5)


def batches(n_items: int, size: int, *, epoch: int = 0, position: int = 0, **options) -> list[list[tuple[int, int]]]:
    sampler = EpochBatchSampler(n_items, size, **{"shuffle": True, "seed": 3, **options})
    sampler.set_epoch(epoch)
    sampler.position = position
    return list(sampler)


@given(items, sizes, worlds, st.booleans(), st.integers(0, 5))
def test_over_all_ranks_each_row_stands_in_one_batch(n_items, size, world, shuffle, epoch):
    options = {"world_size": world, "shuffle": shuffle, "epoch": epoch}
    ranks = [batches(n_items, size, rank=rank, **options) for rank in range(world)]
    assert len({len(rank) for rank in ranks}) == 1
    keys = [key for rank in ranks for batch in rank for key in batch]
    assert {key[0] for key in keys} == {epoch}
    assert sorted(index for _, index in keys if index != PADDING) == list(range(n_items))
    assert all(len(batch) == size for rank in ranks for batch in rank)


@given(items, sizes, worlds)
def test_the_rows_of_a_step_do_not_depend_on_the_number_of_ranks(n_items, size, world):
    together = zip(*(batches(n_items, size, rank=rank, world_size=world) for rank in range(world)), strict=True)
    assert [[key for batch in step for key in batch] for step in together] == batches(n_items, size * world)


@given(items, sizes, st.integers(0, 40))
def test_seeking_is_skipping(n_items, size, position):
    assert batches(n_items, size, position=position) == batches(n_items, size)[position:]


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = {(seed, epoch): str(batches(50, 50, seed=seed, epoch=epoch)[0]) for seed in (0, 1) for epoch in (0, 1)}
    assert len({order.replace("(1,", "(0,") for order in orders.values()}) == 4
    assert batches(50, 5, epoch=1) == batches(50, 5, epoch=1)


def test_without_shuffling_the_order_is_that_of_the_data():
    assert batches(5, 2, shuffle=False) == [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4), (0, PADDING)]]


def test_setting_the_current_epoch_again_keeps_the_position():
    sampler = EpochBatchSampler(20, 2, shuffle=False)
    sampler.set_epoch(1)
    sampler.position = 4
    sampler.set_epoch(1)
    assert sampler.position == 4
    sampler.set_epoch(2)
    assert sampler.position == 0


def test_the_length_is_that_of_the_whole_epoch():
    sampler = EpochBatchSampler(21, 2, shuffle=True, world_size=2)
    sampler.position = 3
    assert len(sampler) == 6
    assert len(list(sampler)) == 3


def test_a_shuffled_epoch_is_not_in_order():
    order = [index for batch in batches(1000, 10) for _, index in batch]
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1


@given(st.integers(1, 3000), st.integers(0, 5), st.integers(0, 3))
def test_a_seekable_permutation_is_one(n, seed, epoch):
    whole = permute(np.arange(n), n, seed, epoch)
    assert sorted(whole.tolist()) == list(range(n))
    positions = np.arange(n)[::7]
    assert (permute(positions, n, seed, epoch) == whole[::7]).all()


def test_a_seekable_permutation_looks_random():
    """Where each number goes, and where its neighbour goes, in many permutations: as often as by chance."""
    n, runs = 100, 400
    found = np.array([permute(np.arange(n), n, seed, 1) for seed in range(runs)])
    counts = np.array([np.bincount(column, minlength=n) for column in found.T])
    chi_square = ((counts - runs / n) ** 2 / (runs / n)).sum() / (n - 1) ** 2
    assert 0.9 < chi_square < 1.1
    steps = np.bincount((np.diff(found, axis=1) % n).ravel(), minlength=n)[1:]
    assert abs(steps / steps.mean() - 1).max() < 0.25  # five standard deviations
    assert len({row.tobytes() for row in found}) == runs


def test_of_many_rows_no_more_is_permuted_than_a_pool(monkeypatch):
    """10^11 rows, of which a permutation would be 800 GB: any batch of any of many ranks is there at once."""
    sampler = EpochBatchSampler(10**11, 8, shuffle=True, seed=3, rank=700, world_size=1024)
    sampler.set_epoch(2)
    sampler.position = 10_000_000
    batch = next(iter(sampler))
    assert len({index for _, index in batch}) == 8
    assert [index for _, index in batch] == sampler.batch(2, 10_000_000).tolist()
    monkeypatch.setattr("src.data.batch_samplers.SMALL", 0)
    keys = [key for rank in range(3) for batch in batches(100, 7, rank=rank, world_size=3) for key in batch]
    assert sorted(index for _, index in keys if index != PADDING) == list(range(100))
    assert batches(100, 7, position=9) == batches(100, 7)[9:]
