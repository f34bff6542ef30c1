"""Packed files and their blocks, against what a few lines of Python say they should be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from src.coverage import MeasuredTokenizer
from src.data.language_modeling import pack
from src.data.packing import PackedBlocks
from src.data.store import IGNORED, RowWriter, open_rows
from src.data.texts import Piece
from src.errors import InputError
from src.tokenization import byte_tokenizer


def blocks(n_tokens: int, seq_len: int, seed: int | None = None) -> PackedBlocks:
    """Blocks of the tokens 0, 1, 2 and so on."""
    return PackedBlocks(np.arange(n_tokens, dtype=np.uint16), seq_len, seed)


sizes = st.tuples(st.integers(1, 40), st.integers(1, 300)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(sizes)
def test_in_evaluation_every_token_but_the_first_is_a_target_once(size):
    seq_len, n_tokens = size
    data = blocks(n_tokens, seq_len)
    batch = data.__getitems__([(0, index) for index in range(len(data))])
    assert batch["labels"][batch["labels"] != IGNORED].tolist() == list(range(1, n_tokens))


@given(sizes, st.integers(0, 20), st.integers(0, 3))
def test_in_training_a_label_is_the_next_token_and_no_token_is_read_twice(size, epoch, seed):
    seq_len, n_tokens = size
    data = blocks(n_tokens, seq_len, seed)
    batch = data.__getitems__([(epoch, index) for index in range(len(data))])
    assert batch["input_ids"].shape == batch["labels"].shape == (len(data), seq_len)
    assert torch.equal(batch["labels"], batch["input_ids"] + 1)
    start = data.offset(epoch)
    assert batch["input_ids"].flatten().tolist() == list(range(start, start + len(data) * seq_len))
    assert n_tokens - len(data) * seq_len <= 2 * seq_len  # what an epoch leaves out is less than two blocks


def test_the_offset_is_a_function_of_seed_and_epoch_and_takes_every_value():
    data = blocks(1001, 8, seed=0)  # as many targets as fill the blocks
    assert {data.offset(epoch) for epoch in range(100)} == set(range(8))
    again, other = blocks(1001, 8, seed=0), blocks(1001, 8, seed=1)
    assert [data.offset(epoch) for epoch in range(20)] == [again.offset(epoch) for epoch in range(20)]
    assert [data.offset(epoch) for epoch in range(20)] != [other.offset(epoch) for epoch in range(20)]


@pytest.mark.parametrize("seed", [None, 0])
def test_a_padding_row_has_no_target(seed):
    data = blocks(100, 10, seed)
    batch = data.__getitems__([(0, 1), (0, -1)])
    assert (batch["labels"][0] != IGNORED).all()
    assert (batch["labels"][1] == IGNORED).all()
    assert batch["input_ids"].min() >= 0
    assert batch["input_ids"].max() < 100


def test_a_row_is_the_same_alone_and_in_a_batch():
    data = blocks(100, 10, seed=0)
    batch = data.__getitems__([(3, 2), (3, 5)])
    for row, key in enumerate([(3, 2), (3, 5)]):
        for name, values in data[key].items():
            assert torch.equal(values, batch[name][row])


def test_ids_are_long_and_rows_are_contiguous():
    batch = blocks(100, 10).__getitems__([(0, 0)])
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64
    assert batch["input_ids"].is_contiguous()


@pytest.mark.parametrize("seed", [None, 0])
def test_a_text_shorter_than_a_block_is_refused_with_both_numbers(seed):
    assert len(blocks(11, 10, seed)) == 1
    with pytest.raises(InputError, match=r"10 tokens.*seq_len 10"):
        blocks(10, 10, seed)


def packed(tmp_path: Path, tokenizer: Tokenizer, texts) -> tuple[list[int], dict[str, int], np.dtype]:
    """What is on the disk, the counts, and the type of the ids."""
    pieces = [Piece(text, True) for text in texts]
    counts = pack(MeasuredTokenizer(tokenizer, "here"), pieces, [0], tmp_path, "train")
    ids = np.load(tmp_path / "train.npy")
    return ids.tolist(), counts, ids.dtype


def test_packing_puts_the_end_token_behind_each_document(tmp_path: Path):
    tokenizer = byte_tokenizer()
    texts = ["one", "zwei €", "三"]
    ids, counts, dtype = packed(tmp_path, tokenizer, texts)
    assert ids == [token for text in texts for token in [*tokenizer.encode(text).ids, 0]]
    n_bytes = sum(len(text.encode()) for text in texts)
    assert counts == {"documents": 3, "tokens": len(ids), "bytes": n_bytes}
    assert dtype == np.uint16


def test_the_documents_are_in_order_however_many_there_are(tmp_path: Path):
    texts = [f"document {i}" for i in range(2500)]
    ids, *_ = packed(tmp_path, byte_tokenizer(), iter(texts))
    decoded = byte_tokenizer().decode(ids, skip_special_tokens=False).split("<|endoftext|>")
    assert decoded == [*texts, ""]


def test_ids_beyond_two_bytes_are_kept(tmp_path: Path):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1 << 16}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert packed(tmp_path, tokenizer, ["a b b"])[0] == [0, 1 << 16, 1 << 16, 0]


@given(st.lists(st.lists(st.integers(0, 65535), max_size=5), max_size=30))
def test_rows_come_back_as_they_were_written(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    with RowWriter(folder, "some", np.uint16) as writer:
        for row in rows:
            writer.append(row)
    found = open_rows(folder, "some")
    assert [row.tolist() for row in found] == rows
    assert (len(found), found.values.dtype) == (len(rows), np.uint16)
