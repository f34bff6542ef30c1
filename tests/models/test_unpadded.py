"""Documents end to end, without padding: losses and gradients of a BERT are those of the padded batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.store import IGNORED
from src.data.unpadding import unpad
from src.models import BERT, BERTConfig
from tests.models.test_choices import ONE_STACK, SHAPE, choices, drawn

FROZEN = ("encoder.pooler", "next_sentence")


def batch_of(lengths: list[int], seed: int = 0) -> dict[str, torch.Tensor]:
    """A padded batch of documents of these lengths, of which some tokens are to be predicted."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    real = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    input_ids = torch.randint(1, 61, shape, generator=generator) * real
    chosen = real & (torch.rand(shape, generator=generator) < 0.3)
    chosen[:, 0] = False  # [CLS], at which the positions of a row with fewer point
    labels = torch.where(chosen, torch.randint(1, 61, shape, generator=generator), IGNORED)
    positions = [row.nonzero()[:, 0] for row in chosen]
    return {
        "input_ids": input_ids,
        "attention_mask": real.long(),
        "token_type_ids": torch.randint(2, shape, generator=generator) * real,
        "labels": labels,
        "masked_positions": torch.nn.utils.rnn.pad_sequence(positions, batch_first=True),
    }


def loss_and_gradients(network: BERT, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    network.zero_grad()
    kept_apart = "document_starts" if "document_starts" in batch else "attention_mask"
    inputs = {name: batch[name] for name in ("input_ids", "token_type_ids", kept_apart, "masked_positions")}
    loss = network(**inputs, labels=batch["labels"].gather(1, batch["masked_positions"])).masked_words
    loss.backward()
    return [loss.detach(), *(p.grad for n, p in network.named_parameters() if not n.startswith(FROZEN))]


lists_of_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(choices(**ONE_STACK), lists_of_lengths, st.integers(1, 4), st.integers(0, 100))
def test_the_loss_and_its_gradients_are_those_of_padded_rows(changes, lengths, rows, seed):
    """Whatever the network's choices, in one row or in several, which then end with padding."""
    torch.manual_seed(0)
    network, batch = drawn(BERT(BERTConfig(**SHAPE, n_layers=2, **changes))), batch_of(lengths, seed)
    unpadded = unpad(batch, rows)
    assert unpadded["input_ids"].shape[0] == rows
    expected, found = loss_and_gradients(network, batch), loss_and_gradients(network, unpadded)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@settings(max_examples=100, deadline=None)
@given(lists_of_lengths, st.integers(1, 4))
def test_every_document_is_there_once_and_none_is_cut(lengths, rows):
    batch = batch_of(lengths)
    found = unpad(batch, rows)
    names = ("input_ids", "token_type_ids", "labels")
    documents = []
    length = found["input_ids"].shape[1]
    for row in range(rows):
        starts = [start for start in found["document_starts"][row].tolist() if start < length]
        for start, end in zip(starts, [*starts[1:], length], strict=True):
            attended = set(found["attention_mask"][row, start:end].tolist())
            assert len(attended) == 1  # a document, or the padding behind the last one
            if attended == {1}:
                documents.append([found[name][row, start:end].tolist() for name in names])
            else:
                assert end == length
                assert (found["labels"][row, start:end] == IGNORED).all()
    assert sorted(documents) == sorted([batch[name][i, :n].tolist() for name in names] for i, n in enumerate(lengths))
    if rows == 1:
        assert length == sum(lengths)
    assert found["attention_mask"].sum(1).min() >= length - max(lengths)
    labels = found["labels"].gather(1, found["masked_positions"])
    assert (labels != IGNORED).sum() == (batch["labels"] != IGNORED).sum()


def test_in_half_precision_a_document_is_read_as_if_it_stood_alone():
    """By the matrix products with which a CPU trains in bfloat16."""
    torch.manual_seed(0)
    network = BERT(BERTConfig(**SHAPE, n_layers=2, positions="rotary", norm="pre"))
    batch = batch_of([40, 7, 7, 23])
    with torch.autocast("cpu", torch.bfloat16):
        expected, *gradients = loss_and_gradients(network, batch)
        found, *others = loss_and_gradients(network, unpad(batch))
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)
    for a, b in zip(others, gradients, strict=True):
        assert (a - b).norm() < 0.02 * b.norm()
