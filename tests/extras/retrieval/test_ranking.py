"""Queries and passages: the inverse cloze task, labelled rows, and hard negatives."""

import json
from pathlib import Path

import numpy as np
import pytest
from bm25s import BM25
from hypothesis import given
from hypothesis import strategies as st

from src.coverage import MeasuredTokenizer
from src.data.sentences import SentenceTokens
from src.errors import InputError
from src.extras.retrieval.data import RerankerDataModule, RetrieverDataModule
from src.extras.retrieval.data.examples import InverseCloze, cut_passages
from src.extras.retrieval.data.groups import NO_PASSAGE
from tests.conftest import WORDS, prepared


def sentences_of(documents: list[list[int]]) -> SentenceTokens:
    """Documents of sentences of these lengths; every token is another number."""
    lengths = [length for document in documents for length in document]
    return SentenceTokens(
        np.arange(sum(lengths)),
        np.ones(sum(lengths), bool),
        np.cumsum([0, *lengths]),
        np.cumsum([0, *map(len, documents)]),
    )


LENGTHS = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=9), min_size=1, max_size=6)


@given(LENGTHS, st.integers(2, 30))
def test_passages_are_runs_of_sentences_within_a_document(documents, size):
    data = sentences_of(documents)
    passages = cut_passages(data, size)
    document_of = np.repeat(np.arange(len(documents)), [len(document) for document in documents])
    for first, last in passages:
        assert last - first >= 2
        assert document_of[first] == document_of[last - 1]
        # it is not longer than asked for, unless its last sentence is one that two sentences need
        assert data.sentences[last - 1] - data.sentences[first] <= size or last - first == 2
    inside = [i for first, last in passages for i in range(first, last)]
    assert inside == sorted(set(inside))
    # what is left out stands at the end of a document: fewer than two sentences
    for number, document in enumerate(documents):
        left = sum(document_of[i] == number for i in set(range(len(document_of))) - set(inside))
        assert left <= (1 if len(document) > 1 else len(document))


@given(LENGTHS, st.integers(0, 99))
def test_a_query_is_a_sentence_and_the_rest_of_its_passage_the_answer(documents, seed):
    data = sentences_of(documents)
    passages = cut_passages(data, 20)
    for keep in (0.0, 1.0):
        examples = InverseCloze(data, passages, keep)
        for i in range(len(examples)):
            example = examples.draw(i, np.random.default_rng(seed))
            whole = examples.passage(i).tolist()
            begin = np.searchsorted(data.sentences, example.query[0])
            assert example.query.tolist() == list(range(data.sentences[begin], data.sentences[begin + 1]))
            rest = [token for token in whole if token not in example.query]
            assert example.positive.tolist() == (whole if keep else rest)
            gap = examples.negative(i, np.random.default_rng(seed))
            assert 0 < len(gap) < len(whole)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Documents of twelve sentences."""
    rng = np.random.default_rng(0)
    sentence = lambda: " ".join(rng.choice(WORDS, rng.integers(6, 10))).capitalize() + "."  # noqa: E731
    texts = [" ".join(sentence() for _ in range(12)) for _ in range(30)]
    (tmp_path / "corpus.txt").write_text("\n\n".join(texts), encoding="utf-8")
    return tmp_path / "corpus.txt"


@pytest.fixture
def make(documents, tmp_path):
    """A data module over those documents."""

    def module(kind=RetrieverDataModule, **changes):
        settings = {
            "source": str(documents),
            "document_separator": "\n\n",
            "validation_fraction": 0.2,
            "test_fraction": 0.0,
            "tokenizer_vocab_size": 120,
            "query_len": 16,
            "seq_len": 48,
            "passage_len": 30,
            "keep": 0.0,
            "batch_size": 4,
            "cache_dir": str(tmp_path / "cache"),
        }
        return prepared(kind(**{**settings, **changes}))

    return module


def test_groups_depend_on_seed_epoch_and_index_alone(make):
    rows, again = make(negatives=3).dataset("train"), make(negatives=3).dataset("train")
    assert [rows.group((1, i)) for i in (3, 5, 3)] == [again.group((1, i)) for i in (3, 5, 3)]
    assert [rows.group((0, i)) for i in range(20)] != [rows.group((1, i)) for i in range(20)]
    other = make(negatives=3, seed=1).dataset("train")
    assert [rows.group((0, i)) for i in range(20)] != [other.group((0, i)) for i in range(20)]
    evaluation = make(negatives=3, seed=1).dataset("validation")
    assert evaluation.group((0, 1)) == make(negatives=3).dataset("validation").group((4, 1))


def test_negatives_are_the_best_of_bm25_and_never_the_own_passage(make):
    rows = make(negatives=5, negatives_depth=5).dataset("train")
    examples = rows.examples
    scorer = BM25()
    scorer.index([[str(t) for t in examples.passage(i)] for i in range(examples.n_passages)], show_progress=False)
    for index in range(10):
        group = rows.group((0, index))
        assert group.numbers[0] == index
        assert len(set(group.numbers)) == 6
        scores = scorer.get_scores([str(t) for t in dict.fromkeys(group.query)])
        scores[index] = -1
        chosen = sorted(scores[group.numbers[1:]])
        np.testing.assert_allclose(chosen, np.sort(scores)[-5:], rtol=1e-5)


def test_rows_of_towers_and_of_pairs(make):
    towers, pairs = (make(kind, negatives=2) for kind in (RetrieverDataModule, RerankerDataModule))
    special = towers.tokenizer.token_to_id
    cls, sep, pad = special("[CLS]"), special("[SEP]"), special("[PAD]")
    group = towers.dataset("train").group((0, 7))
    assert group == pairs.dataset("train").group((0, 7))
    apart, together = (module.dataset("train")[(0, 7)] for module in (towers, pairs))
    strip = lambda ids: ids[ids != pad].tolist()  # noqa: E731
    assert strip(apart["query_input_ids"]) == [cls, *group.query, sep]
    for i, passage in enumerate(group.passages):
        assert strip(apart["input_ids"][i]) == [cls, *passage, sep]
        row = [cls, *group.query, sep, *passage, sep]
        ids, mask, segments = (together[name][i] for name in ("input_ids", "attention_mask", "token_type_ids"))
        assert strip(ids) == row
        assert mask.tolist() == [1] * len(row) + [0] * (len(ids) - len(row))
        n = len(group.query) + 2
        assert segments.tolist() == [0] * n + [1] * (len(row) - n) + [0] * (len(ids) - len(row))
    padding = pairs.dataset("train")[(0, -1)]
    assert padding["labels"] == -100
    assert padding["passage_numbers"].tolist() == [NO_PASSAGE] * 3
    assert padding["attention_mask"].sum() == 9  # [CLS] [SEP] [SEP]


def labelled(tmp_path: Path, ending: str) -> Path:
    rows = [
        {
            "query": f"the cat {i}",
            "answer": f"old stone {i} bridges",
            "wrong": [f"grey {i} dogs", "nobody said"][: i % 3],
        }
        for i in range(30)
    ]
    path = tmp_path / f"rows.{ending}"
    if ending == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    else:
        import pyarrow as pa
        from pyarrow.parquet import write_table

        write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_labelled_rows_give_their_own_negatives_first(make, tmp_path, ending):
    columns = {"query_column": "query", "positive_column": "answer", "negatives_column": "wrong"}
    module = make(RerankerDataModule, source=str(labelled(tmp_path, ending)), negatives=2, **columns)
    rows, decode = module.dataset("train"), module.tokenizer.decode
    assert len(rows) == 24
    assert module.summary()["validation"]["queries"] == 6
    seen = set()
    for i in range(len(rows)):
        group = rows.group((0, i))
        query, (own, *others) = decode(group.query), map(decode, group.passages)
        number = query.split()[-1]
        assert own == f"old stone {number} bridges"
        wanted = [f"grey {number} dogs", "nobody said"][: int(number) % 3]
        assert set(wanted) <= set(others)
        assert len(set(group.numbers)) == 3  # those that are missing come from BM25
        if "nobody said" in others:
            seen.add(group.numbers[1 + others.index("nobody said")])
    assert len(seen) == 1  # one passage, however many rows name it


def test_bad_numbers_and_sources_are_refused(make, tmp_path):
    for changes, message in [
        ({"keep": 2}, "keep is 2"),
        ({"query_len": 2}, "query_len is 2"),
        ({"negatives": -1}, "negatives is -1"),
        ({"source": str(labelled(tmp_path, "jsonl")), "query_column": "question"}, "has no column 'question'"),
        ({"document_separator": "nowhere", "validation_fraction": 0.0}, "has no validation split"),
    ]:
        with pytest.raises(InputError, match=message):
            make(**changes).setup("fit")
    with pytest.raises(InputError, match="negatives is 0"):
        make(RerankerDataModule).setup("fit")


@pytest.mark.parametrize("is_labelled", [False, True])
def test_a_complete_split_stays_when_a_preparation_is_killed(make, tmp_path, monkeypatch, is_labelled):
    """With its index of hard negatives."""
    columns = {"query_column": "query", "positive_column": "answer", "negatives_column": "wrong"}
    options = {"source": str(labelled(tmp_path, "jsonl")), **columns} if is_labelled else {}
    whole, encode, doomed = make(negatives=2, **options), MeasuredTokenizer.encode, "validation split"

    def killed(tokenizer, *arguments, **changes):
        if doomed in tokenizer.where:
            raise KeyboardInterrupt
        return encode(tokenizer, *arguments, **changes)

    monkeypatch.setattr(MeasuredTokenizer, "encode", killed)
    options["cache_dir"] = str(tmp_path / "again")
    with pytest.raises(KeyboardInterrupt):
        make(negatives=2, **options)
    doomed = "train split"
    again = make(negatives=2, **options)
    assert again.info == whole.info
    for path in whole.folder.iterdir():
        assert (again.folder / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_damaged_cache_is_made_again(make):
    module = make(negatives=2)
    path = module.folder / "train.bm25.data.npy"
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert make(negatives=2).folder == module.folder
    assert path.read_bytes() == before
