"""Packed files and their blocks, against what a few lines of Python say they should be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from src.coverage import MeasuredTokenizer
from src.data.packing import IGNORED, PackedBlocks, PackedInfo, is_complete, pack, read_info, write_info
from src.errors import InputError
from src.tokenization import byte_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packed")


def blocks(folder: Path, n_tokens: int, seq_len: int, seed: int | None = None) -> PackedBlocks:
    """Blocks of the tokens 0, 1, 2 and so on."""
    path = folder / f"{n_tokens}.bin"
    if not path.exists():
        np.arange(n_tokens, dtype=np.uint16).tofile(path)
    return PackedBlocks(path, PackedInfo(1, n_tokens, n_tokens, "<u2", 0), seq_len, seed)


sizes = st.tuples(st.integers(1, 40), st.integers(1, 300)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(sizes)
def test_in_evaluation_every_token_but_the_first_is_a_target_once(folder, size):
    seq_len, n_tokens = size
    data = blocks(folder, n_tokens, seq_len)
    batch = data.__getitems__([(0, index) for index in range(len(data))])
    assert batch["labels"][batch["labels"] != IGNORED].tolist() == list(range(1, n_tokens))


@given(sizes, st.integers(0, 20), st.integers(0, 3))
def test_in_training_a_label_is_the_next_token_and_no_token_is_read_twice(folder, size, epoch, seed):
    seq_len, n_tokens = size
    data = blocks(folder, n_tokens, seq_len, seed)
    batch = data.__getitems__([(epoch, index) for index in range(len(data))])
    assert batch["input_ids"].shape == batch["labels"].shape == (len(data), seq_len)
    assert torch.equal(batch["labels"], batch["input_ids"] + 1)
    start = data.offset(epoch)
    assert batch["input_ids"].flatten().tolist() == list(range(start, start + len(data) * seq_len))
    assert n_tokens - len(data) * seq_len <= 2 * seq_len  # what an epoch leaves out is less than two blocks


def test_the_offset_is_a_function_of_seed_and_epoch_and_takes_every_value(folder):
    data = blocks(folder, 1001, 8, seed=0)  # as many targets as fill the blocks
    assert {data.offset(epoch) for epoch in range(100)} == set(range(8))
    again, other = blocks(folder, 1001, 8, seed=0), blocks(folder, 1001, 8, seed=1)
    assert [data.offset(epoch) for epoch in range(20)] == [again.offset(epoch) for epoch in range(20)]
    assert [data.offset(epoch) for epoch in range(20)] != [other.offset(epoch) for epoch in range(20)]


@pytest.mark.parametrize("seed", [None, 0])
def test_a_padding_row_has_no_target(folder, seed):
    data = blocks(folder, 100, 10, seed)
    batch = data.__getitems__([(0, 1), (0, -1)])
    assert (batch["labels"][0] != IGNORED).all()
    assert (batch["labels"][1] == IGNORED).all()
    assert batch["input_ids"].min() >= 0
    assert batch["input_ids"].max() < 100


def test_a_row_is_the_same_alone_and_in_a_batch(folder):
    data = blocks(folder, 100, 10, seed=0)
    batch = data.__getitems__([(3, 2), (3, 5)])
    for row, key in enumerate([(3, 2), (3, 5)]):
        for name, values in data[key].items():
            assert torch.equal(values, batch[name][row])


def test_ids_are_long_and_rows_are_contiguous(folder):
    batch = blocks(folder, 100, 10).__getitems__([(0, 0)])
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64
    assert batch["input_ids"].is_contiguous()


@pytest.mark.parametrize("seed", [None, 0])
def test_a_text_shorter_than_a_block_is_refused_with_both_numbers(folder, seed):
    assert len(blocks(folder, 11, 10, seed)) == 1
    with pytest.raises(InputError, match=r"10 tokens.*seq_len 10"):
        blocks(folder, 10, 10, seed)


def test_packing_puts_the_end_token_behind_each_document(tmp_path: Path):
    tokenizer = byte_tokenizer()
    texts = ["one", "zwei €", "三"]
    info = pack(MeasuredTokenizer(tokenizer, "here"), texts, 0, tmp_path / "train.bin")
    expected = [token for text in texts for token in [*tokenizer.encode(text).ids, 0]]
    assert np.fromfile(tmp_path / "train.bin", info.dtype).tolist() == expected
    n_bytes = sum(len(text.encode()) for text in texts)
    assert info[:3] == (3, len(expected), n_bytes)
    assert np.dtype(info.dtype) == np.uint16


def test_the_documents_are_in_order_however_many_there_are(tmp_path: Path):
    texts = [f"document {i}" for i in range(2500)]
    info = pack(MeasuredTokenizer(byte_tokenizer(), "here"), iter(texts), 0, tmp_path / "train.bin")
    ids = np.fromfile(tmp_path / "train.bin", info.dtype)
    decoded = byte_tokenizer().decode(ids.tolist(), skip_special_tokens=False).split("<|endoftext|>")
    assert decoded == [*texts, ""]


def test_ids_beyond_two_bytes_are_kept(tmp_path: Path):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1 << 16}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    info = pack(MeasuredTokenizer(tokenizer, "here"), ["a b b"], 0, tmp_path / "train.bin")
    assert np.fromfile(tmp_path / "train.bin", info.dtype).tolist() == [0, 1 << 16, 1 << 16, 0]


def test_damage_is_noticed(tmp_path: Path):
    path = tmp_path / "train.bin"
    info = pack(MeasuredTokenizer(byte_tokenizer(), "here"), ["some text to write"], 0, path)
    write_info(tmp_path / "info.json", {"train": info})
    assert read_info(tmp_path / "info.json") == {"train": info}
    assert is_complete(path, info)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert not is_complete(path, info)
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert not is_complete(path, info)
    path.write_bytes(whole)
    assert is_complete(path, info)
    path.unlink()
    assert not is_complete(path, info)
