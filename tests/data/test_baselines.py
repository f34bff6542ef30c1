"""Models that only count, against counts by loops; and each data module's targets, against its batches."""

import json
import math
from collections import Counter, defaultdict
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data import ClassificationDataModule, LMDataModule, MLMDataModule, TranslationDataModule
from src.data import baselines as counting
from src.data.baselines import Bigram, Targets, majority_accuracy, mean_losses, unigram
from src.tokenization import bert_ids, train_wordpiece
from tests.conftest import prepared

TEXT = "The cat sat on a mat. Seven grey dogs ran over old stone bridges. Nobody said one word! Is it so?\n"
N_IDS = 6
IDS = st.lists(st.integers(0, N_IDS - 1), min_size=2, max_size=40)


def unigram_of(ids: list[int], n_ids: int) -> list[float]:
    counts = Counter(ids)
    return [(counts[i] + 1) / (len(ids) + n_ids) for i in range(n_ids)]


def bigram_of(pairs: list[tuple[int, int]], n_ids: int):
    """p(w | v), by the formula and a dictionary."""
    after: dict[int, Counter[int]] = defaultdict(Counter)
    for context, token in pairs:
        after[context][token] += 1
    single = unigram_of([token for _, token in pairs], n_ids)

    def probability(context: int, token: int) -> float:
        followers = after.get(context)
        if followers is None:
            return single[token]
        total = sum(followers.values())
        return (max(followers[token] - 0.75, 0) + 0.75 * len(followers) * single[token]) / total

    return probability


@given(IDS)
def test_the_unigram_is_the_frequency_plus_one(ids):
    found = unigram(np.array(ids, np.uint16), N_IDS)
    np.testing.assert_allclose(found, unigram_of(ids, N_IDS), rtol=1e-12)
    assert found.sum() == pytest.approx(1)


@given(IDS, st.sampled_from([np.uint16, np.uint32, np.int64]))
def test_the_bigram_is_the_formula_and_sums_to_one_after_every_token(ids, dtype):
    tokens = np.array(ids, dtype)
    model, expected = Bigram(tokens[:-1], tokens[1:], N_IDS), bigram_of(list(pairwise(ids)), N_IDS)
    contexts, targets = (part.ravel() for part in np.indices((N_IDS, N_IDS)))  # those never met among them
    found = model.probabilities(contexts, targets)
    by_loops = [expected(*pair) for pair in zip(contexts.tolist(), targets.tolist(), strict=True)]
    np.testing.assert_allclose(found, by_loops, rtol=1e-12)
    np.testing.assert_allclose(found.reshape(N_IDS, N_IDS).sum(1), 1, rtol=1e-12)


@given(IDS, IDS)
def test_losses_are_means_over_the_validation_targets(train, validation):
    arrays = [np.array(ids, np.uint16) for ids in (train, validation)]
    found = mean_losses(*(Targets(ids[1:], ids[:-1]) for ids in arrays), N_IDS)
    single, after = unigram_of(train[1:], N_IDS), bigram_of(list(pairwise(train)), N_IDS)
    pairs = list(pairwise(validation))
    assert found["uniform"] == pytest.approx(math.log(N_IDS))
    assert found["unigram"] == pytest.approx(-sum(math.log(single[token]) for _, token in pairs) / len(pairs))
    assert found["bigram"] == pytest.approx(-sum(math.log(after(*pair)) for pair in pairs) / len(pairs))


@given(IDS, IDS)
def test_the_majority_is_that_of_the_training_targets(train, validation):
    best = max(range(N_IDS), key=lambda i: (train.count(i), -i))
    found = majority_accuracy(Targets(np.array(train)), Targets(np.array(validation)))
    assert found == pytest.approx(validation.count(best) / len(validation))


# ---- the targets of each data module are those of its batches


@pytest.fixture
def language(text_file, tmp_path):
    settings = {"source": str(text_file), "document_separator": "\n\n", "validation_fraction": 0.1}
    return {**settings, "cache_dir": str(tmp_path / "cache")}


def rows_of(batches, *names):
    """What stands in these at every position that has a label, over all batches in order."""
    found = [[batch[name][batch["labels"] != -100].tolist() for name in names] for batch in batches]
    return tuple([value for row in column for value in row] for column in zip(*found, strict=True))


def test_language_modelling_predicts_every_token_but_the_first(language):
    data = prepared(LMDataModule(**language, tokenizer="char", seq_len=16))
    contexts, ids = rows_of(data.val_dataloader(), "input_ids", "labels")
    found = data.targets("validation")
    assert (found.contexts.tolist(), found.ids.tolist(), found.extent) == (contexts, ids, "")
    assert len(data.targets("train").ids) == data.summary()["train"]["tokens"] - 1


def test_of_much_text_the_beginning_is_counted_and_that_is_said(language, monkeypatch):
    data = prepared(LMDataModule(**language, tokenizer="char", seq_len=16))
    whole, total = data.targets("train"), data.summary()["train"]["tokens"] - 1
    monkeypatch.setattr("src.data.language_modeling.MOST_TOKENS", 100)
    found = data.targets("train")
    assert found.extent == f"the first 100 of {total:,} train tokens"
    assert (found.ids == whole.ids[:100]).all()
    assert (found.contexts == whole.contexts[:100]).all()
    said = counting.note(found.extent, "", data.targets("validation").extent)
    assert said.startswith(f"the baselines are of the first 100 of {total:,} train tokens and the first 100 of ")
    assert counting.note("", "") == ""


def test_of_a_stream_what_training_begins_with_is_counted(language, monkeypatch):
    settings = {**language, "tokenizer": "byte", "seq_len": 16, "batch_size": 2, "streaming": True}
    settings |= {"holdout_documents": 5}
    untouched = [
        batch["input_ids"].flatten().tolist()
        for batch in islice(prepared(LMDataModule(**settings)).train_dataloader(), 3)
    ]
    data = prepared(LMDataModule(**settings))
    monkeypatch.setattr("src.data.language_modeling.MOST_STREAMED", 90)
    found = data.targets("train")
    assert found.extent == "the first 90 train tokens of the stream"
    read = [token for batch in untouched for token in batch]
    assert found.contexts.tolist() == read[:90]
    assert found.ids.tolist() == read[1:91]
    # and training reads what it would have read without
    assert [batch["input_ids"].flatten().tolist() for batch in islice(data.train_dataloader(), 3)] == untouched


@pytest.mark.parametrize("next_sentence", [True, False])
def test_any_ordinary_token_may_be_masked(tmp_path, next_sentence):
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(TEXT * (i % 3 + 1) + f"☃ is number {i}." for i in range(40)), encoding="utf-8")
    settings = {"source": str(path), "document_separator": "\n\n", "tokenizer_vocab_size": 60, "seq_len": 24}
    settings |= {"next_sentence": next_sentence, "validation_fraction": 0.2, "cache_dir": str(tmp_path / "c")}
    data = prepared(MLMDataModule(**settings))
    special = set(bert_ids(data.tokenizer).values())
    found = data.targets("validation").ids.tolist()
    assert found
    assert not special & set(found)
    labels = {int(label) for batch in data.val_dataloader() for label in batch["labels"].flatten() if label != -100}
    assert labels <= set(found)
    if next_sentence:
        answers = [int(answer) for batch in data.val_dataloader() for answer in batch["next_sentence_label"]]
        # the last batch is filled up with rows without one
        assert data.next_sentence_targets("validation").ids.tolist() == [answer for answer in answers if answer >= 0]
        return
    # whole documents: the rows hold each token of the split once
    read = []
    for batch in data.val_dataloader():
        ids = batch["input_ids"].where(batch["labels"] == -100, batch["labels"])  # as before masking
        read += [int(i) for row, real in zip(ids, batch["attention_mask"], strict=True) for i in row[real.bool()]]
    assert [i for i in read if i not in special] == found


def test_translation_predicts_each_target_from_the_start_token_on(tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    for split, n in (("train", 30), ("validation", 7), ("test", 2)):
        lines = [TEXT[i : i + 5 + 3 * i % 11] for i in range(n)]
        (folder / f"{split}.en").write_text("\n".join(lines))
        (folder / f"{split}.fr").write_text("\n".join(line[::-1] for line in lines))
    settings = {"source": str(folder), "tokenizer": "char", "max_length": 12, "max_tokens": 64}
    data = prepared(TranslationDataModule(**settings, cache_dir=str(tmp_path / "cache")))
    for split, loader in (("validation", data.val_dataloader()), ("test", data.test_dataloader())):
        rows = {}
        for batch in loader:
            for i, *row in zip(batch["index"].tolist(), batch["decoder_input_ids"], batch["labels"], strict=True):
                rows[i] = [part[row[1] != -100].tolist() for part in row]
        found = data.targets(split)
        contexts, ids = ([token for i in sorted(rows) for token in rows[i][part]] for part in (0, 1))
        assert (found.contexts.tolist(), found.ids.tolist()) == (contexts, ids)
        assert contexts[0] == data.start_id


def test_a_translation_may_start_with_a_token_of_its_own(tmp_path):
    """Each sentence's first target follows the start token, and not the end of the sentence before it."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        for language in ("en", "fr"):
            (folder / f"{split}.{language}").write_text("sab\nsba\nsaa\n")
    settings = {"source": str(folder), "tokenizer": "char", "start_token": "s", "max_length": 8, "max_tokens": 64}
    data = prepared(TranslationDataModule(**settings, cache_dir=str(tmp_path / "cache")))
    found = data.targets("train")
    assert found.contexts[::4].tolist() == [data.start_id] * 3
    assert found.ids[3::4].tolist() == [data.end_id] * 3
    assert data.start_id != data.end_id


def test_classification_predicts_labels(tmp_path):
    tokenizer = tmp_path / "tokenizer.json"
    train_wordpiece([TEXT], 60).save(str(tokenizer))
    rows = [{"text": f"The cat {i}", "label": ("no", "yes", "no")[i % 3]} for i in range(40)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    settings = {"tokenizer": str(tokenizer), "source": str(path), "cache_dir": str(tmp_path / "cache")}
    data = prepared(ClassificationDataModule(**settings))
    labels = [int(label) for batch in data.val_dataloader() for label in batch["labels"]]
    assert data.targets("validation").ids.tolist() == [label for label in labels if label >= 0]
