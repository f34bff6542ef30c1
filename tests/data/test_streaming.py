"""Blocks out of a stream: every token in order, shared between ranks, resumable."""

from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader

from src.data.loader import TokenCountingLoader
from src.data.packing import StreamedBlocks
from src.errors import InputError
from src.tokenization import byte_tokenizer

TOKENIZER = byte_tokenizer()
DOCUMENTS = [f"document number {i} of the stream, " + "word " * (i % 7) for i in range(50)]


def passes(number: int):
    """Another order each pass."""
    return iter(DOCUMENTS[number:] + DOCUMENTS[:number])


def stream(rank: int = 0, world_size: int = 1, documents=passes) -> StreamedBlocks:
    return StreamedBlocks(documents, TOKENIZER, 0, 8, 3, rank, world_size)


def tokens(texts) -> list[int]:
    return [token for text in texts for token in [*TOKENIZER.encode(text).ids, 0]]


def first(batches, n: int):
    return list(islice(iter(batches), n))


def inputs(batches) -> list[int]:
    return [token for batch in batches for token in batch["input_ids"].flatten().tolist()]


def test_every_token_comes_in_order_and_over_more_than_one_pass():
    expected = tokens([*passes(0), *passes(1), *passes(2)])
    n = len(expected) // 24 - 1
    batches = first(stream(), n)
    assert n * 24 > 2 * len(tokens(DOCUMENTS))
    assert inputs(batches) == expected[: n * 24]
    labels = [token for batch in batches for token in batch["labels"].flatten().tolist()]
    assert labels == expected[1 : n * 24 + 1]


def test_the_ranks_share_the_documents():
    for rank in range(3):
        expected = tokens(DOCUMENTS[rank::3])
        n = len(expected) // 24 - 1
        assert inputs(first(stream(rank, 3), n)) == expected[: n * 24]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_restored_stream_goes_on_where_it_was(workers):
    def counting() -> TokenCountingLoader:
        blocks = stream()
        return TokenCountingLoader(DataLoader(blocks, batch_size=None, num_workers=workers), blocks, 2)

    whole = first(counting(), 20)
    begun = counting()
    iterator = iter(begun)
    seen = [next(iterator) for _ in range(7)]
    resumed = counting()
    resumed.load_state_dict(begun.state_dict())
    resumed.sampler.set_epoch(0)
    assert inputs(seen + first(resumed, 13)) == inputs(whole)
    assert all(batch["target_tokens"] == 24 for batch in whole)


def test_an_epoch_of_a_part_of_a_stream_has_steps_of_its_own():
    """Of 3 batches and steps of 2: the last one has a batch, whatever the position in the stream."""

    def counting() -> TokenCountingLoader:
        blocks = stream()
        loader = DataLoader(blocks, batch_size=None)
        return TokenCountingLoader(loader, blocks, 2, batches_per_epoch=lambda: 3)

    begun = counting()
    seen = []
    for epoch in range(2):
        begun.sampler.set_epoch(epoch)
        seen += list(begun)
    assert inputs(seen) == inputs(first(stream(), 6))
    assert [batch["target_tokens"].item() for batch in seen] == [24, 24, 12] * 2
    resumed, state = counting(), {"epoch": 1, "first": 3, "position": 5}
    resumed.load_state_dict(state)
    resumed.sampler.set_epoch(1)
    (last,) = resumed
    assert last["target_tokens"] == 12
    assert inputs([last]) == inputs(seen[5:])


def test_batches_have_the_shape_of_packed_ones():
    (batch,) = first(stream(), 1)
    assert batch["input_ids"].shape == batch["labels"].shape == (3, 8)
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64


def test_a_stream_without_documents_is_refused_and_not_waited_for():
    with pytest.raises(InputError, match="no documents"):
        first(stream(documents=lambda number: iter(())), 1)
