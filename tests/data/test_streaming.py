"""Streams: every document once a pass, shared between ranks and workers, resumable without reading again."""

import json
from collections import Counter
from itertools import islice

import pytest
import torch
from datasets import IterableDataset
from torch.utils.data import DataLoader

from src.data.corpora import Corpus
from src.data.loader import TokenCountingLoader
from src.data.packing import StreamedBlocks
from src.data.streams import DocumentStream
from src.data.tables import table_rows
from src.errors import InputError
from src.tokenization import byte_tokenizer

TOKENIZER = byte_tokenizer()
DOCUMENTS = [f"document number {i} of the stream, " + "word " * (i % 7) for i in range(50)]
LENGTH = 32  # tokens of one of the numbered documents, its end token among them


def read(shards: list[list[str]]):
    for shard in shards:
        for text in shard:
            yield {"text": text}


def rows(documents: list[str], shards: int = 1) -> IterableDataset:
    parts = [documents[i::shards] for i in range(shards)]
    return IterableDataset.from_generator(read, gen_kwargs={"shards": parts})


def stream(documents=DOCUMENTS, shards: int = 1, **options) -> StreamedBlocks:
    documents = documents if isinstance(documents, DocumentStream) else DocumentStream(rows(documents, shards))
    return StreamedBlocks(documents, TOKENIZER, [0], 8, 3, **options)


def numbered(n: int) -> list[str]:
    return [f"document {i:06d} ".ljust(LENGTH - 1, "x") for i in range(n)]


def first(batches, n: int):
    return list(islice(iter(batches), n))


def inputs(batches) -> list[int]:
    return [token for batch in batches for token in batch["input_ids"].flatten().tolist()]


def texts(batches) -> list[str]:
    """The whole documents of the batches of one reader."""
    found = [[]]
    for token in inputs(batches):
        if token == 0:
            found.append([])
        else:
            found[-1].append(token)
    return [TOKENIZER.decode(ids) for ids in found[:-1]]


def counting(blocks: StreamedBlocks, accumulate: int = 1) -> TokenCountingLoader:
    workers = blocks.workers if blocks.workers > 1 else 0
    loader = DataLoader(blocks, batch_size=None, num_workers=workers, collate_fn=lambda batch: batch)
    return TokenCountingLoader(loader, blocks, accumulate)


def test_every_document_comes_once_a_pass_and_each_pass_in_another_order():
    per_pass = sum(len(text.encode()) + 1 for text in DOCUMENTS)
    batches = first(stream(), 3 * per_pass // 24)
    read = texts(batches)
    assert sorted(read[:50]) == sorted(read[50:100]) == sorted(DOCUMENTS)
    assert read[:50] != read[50:100]
    labels = [token for batch in batches for token in batch["labels"].flatten().tolist()]
    assert inputs(batches)[1:] == labels[:-1]
    assert inputs(first(stream(seed=1), 30)) != inputs(first(stream(), 30))


@pytest.mark.parametrize("shards", [3, 8])
def test_ranks_and_workers_share_the_documents_after_a_kill_too(shards):
    """2 ranks with 2 workers each: all go on from the state of the first, as the checkpoint has it."""
    documents = numbered(120)
    n = 120 // 4 * LENGTH // 24  # batches of a reader's share
    read = Counter()
    for rank in range(2):
        options = {"shards": shards, "rank": rank, "world_size": 2, "workers": 2}
        others = stream(documents, **{**options, "rank": 1 - rank})
        first(counting(others), n)
        begun = stream(documents, **options, gather=lambda mine, others=others: [mine, others.places])
        loader = counting(begun)
        seen = first(loader, n)
        resumed = stream(documents, **options)
        again = counting(resumed)
        again.load_state_dict(json.loads(json.dumps(loader.state_dict(), default=str), object_hook=whole_keys))
        seen += first(again, n)
        for worker in range(2):
            read.update(texts(seen[worker::2]))
    missing = set(documents) - set(read)
    assert len(missing) <= 4  # the last document of each reader is not at its end yet
    assert all(count == 1 for count in read.values())


def whole_keys(fields: dict) -> dict:
    return {int(key) if key.isdecimal() else key: value for key, value in fields.items()}


def test_a_resume_reads_as_little_at_any_batch(monkeypatch):
    """At batch 100, 1,000 and 10,000: what is tokenised before the next batch does not depend on it."""
    monkeypatch.setattr("src.data.streams.BLOCK", 50)
    documents, counts = numbered(4000), []

    class Counted:
        """Counts the documents that are given to the tokenizer."""

        def __init__(self, blocks: StreamedBlocks) -> None:
            self.n, self.pieces = 0, blocks._pieces
            blocks._pieces = self.count

        def count(self, *arguments):
            for piece in self.pieces(*arguments):
                self.n += 1
                yield piece

    begun = stream(documents, shards=40)
    loader = counting(begun)
    iterator, states, following = iter(loader), {}, {}
    for i in range(1, 10_002):
        batch = next(iterator)
        if i - 1 in states:
            following[i - 1] = batch
        if i in (100, 1_000, 10_000):
            states[i] = loader.state_dict()
    for i, state in states.items():
        blocks = stream(documents, shards=40)
        counted = Counted(blocks)
        blocks.load_state_dict(state)
        assert torch.equal(next(iter(blocks))["input_ids"], following[i]["input_ids"])
        counts.append(counted.n)
    assert max(counts) <= 200  # two groups that are tokenised at once


@pytest.mark.parametrize("workers", [1, 2])
def test_a_restored_stream_goes_on_where_it_was(workers):
    whole = first(counting(stream(workers=workers), 2), 20)
    begun = counting(stream(workers=workers), 2)
    iterator = iter(begun)
    seen = [next(iterator) for _ in range(7)]
    resumed = counting(stream(workers=workers), 2)
    resumed.load_state_dict(begun.state_dict())
    resumed.sampler.set_epoch(0)
    assert inputs(seen + first(resumed, 13)) == inputs(whole)
    assert all(batch["target_tokens"] == 24 for batch in whole)


def test_a_stream_of_other_readers_is_refused():
    state = stream().state_dict()
    with pytest.raises(InputError, match=r"read by 1 processes .* would now be by 4: set trainer.devices and"):
        stream(world_size=2, workers=2).load_state_dict(state)
    with pytest.raises(InputError, match="read by an earlier version"):
        stream().load_state_dict({"epoch": 0, "first": 0, "position": 3})


def test_an_epoch_of_a_part_of_a_stream_has_steps_of_its_own():
    """Of 3 batches and steps of 2: the last one has a batch, whatever the position in the stream."""

    def parts() -> TokenCountingLoader:
        blocks = stream()
        return TokenCountingLoader(DataLoader(blocks, batch_size=None), blocks, 2, batches_per_epoch=lambda: 3)

    begun = parts()
    seen, states = [], []
    for epoch in range(2):
        begun.sampler.set_epoch(epoch)
        for batch in begun:
            seen.append(batch)
            states.append(begun.state_dict())
    assert inputs(seen) == inputs(first(stream(), 6))
    assert [batch["target_tokens"].item() for batch in seen] == [24, 24, 12] * 2
    resumed = parts()
    resumed.load_state_dict(states[4])
    resumed.sampler.set_epoch(1)
    (last,) = resumed
    assert last["target_tokens"] == 12
    assert inputs([last]) == inputs(seen[5:])


def test_batches_have_the_shape_of_packed_ones():
    (batch,) = first(stream(), 1)
    assert batch["input_ids"].shape == batch["labels"].shape == (3, 8)
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stream_without_documents_is_refused_in_one_line_and_not_waited_for(workers):
    with pytest.raises(InputError, match=r"no documents to train on for reader 1 of \d") as refused:
        first(counting(stream([" "], workers=workers)), 1)
    assert "\n" not in str(refused.value)


def test_what_is_held_out_is_trained_on_nowhere():
    """Neither the first documents nor others like them; and files can be shuffled, which `skip` would forbid."""
    source = rows([*DOCUMENTS, DOCUMENTS[2]], shards=1)
    read = [row["text"] for row in DocumentStream(source, source.take(5))]
    assert read == DOCUMENTS[5:]


def test_a_lost_connection_is_waited_for(monkeypatch, capsys):
    pauses, failures = [], iter([3, 17, 17])
    monkeypatch.setattr("time.sleep", pauses.append)
    at = [next(failures)]

    def unreliable(shards):
        for i, row in enumerate(read(shards)):
            if i == at[0]:
                at[0] = next(failures, -1)
                raise ConnectionError("the hub has a hiccup")
            yield row

    source = IterableDataset.from_generator(unreliable, gen_kwargs={"shards": [DOCUMENTS]})
    monkeypatch.setattr("src.data.streams.BLOCK", 10)
    assert [row["text"] for row in DocumentStream(source)] == DOCUMENTS
    assert pauses == [2, 2, 4]
    assert "trying again in 4 s" in capsys.readouterr().out


def test_a_connection_that_stays_lost_ends_the_run(monkeypatch):
    def lost(shards):
        raise TimeoutError("no answer")
        yield

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(TimeoutError):
        list(DocumentStream(IterableDataset.from_generator(lost, gen_kwargs={"shards": [DOCUMENTS]})))


@pytest.mark.parametrize("ending", ["jsonl", "csv", "txt"])
def test_of_a_file_no_more_is_read_than_is_needed(tmp_path, ending, monkeypatch):
    """Of 30,000 rows the first are given before most lines are read."""
    monkeypatch.setattr("src.data.sources.SURVEYED", 1000)
    lines = [f'{{"text": "row {i}"}}' if ending == "jsonl" else f"row {i}" for i in range(30_000)]
    (tmp_path / f"rows.{ending}").write_text("\n".join(["text", *lines] if ending == "csv" else lines))
    corpus = Corpus(
        str(tmp_path / f"rows.{ending}"), document_separator="\n", streaming=True, holdout_documents=5, test_fraction=0
    )
    parsed = []
    if ending == "csv":
        for module in ("tables", "sources"):
            counted = lambda *a: (parsed.append(row) or row for row in table_rows(*a))  # noqa: E731
            monkeypatch.setattr(f"src.data.{module}.table_rows", counted)
    else:
        monkeypatch.setattr("src.data.json_rows._parsed", lambda text: parsed.append(text) or json.loads(text))
    documents = corpus.splits(tmp_path / "cache")["train"]
    assert [row["text"] for row in islice(documents, 3)] == ["row 5", "row 6", "row 7"]
    assert len(parsed) < 10_000
