"""BERT's pretraining data: rows, reproducibility, batches by length, and audits for leaks on real text."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from torch.nn.functional import cross_entropy

from src.data import MLMDataModule
from src.data.batch_samplers import BucketBatchSampler
from src.data.store import IGNORED
from src.errors import InputError
from tests.conftest import prepared
from tests.outside import pieces_with_gaps

NOUNS = [
    "river",
    "mountain",
    "teacher",
    "orchestra",
    "vaccine",
    "senator",
    "battle",
    "novel",
    "enzyme",
    "bridge",
    "festival",
    "glacier",
]
SENTENCES = ("The {} was old.", "Many say that one {} and the {} are alike!", "Unbelievable {}?", "It saw a {} in {}.")


def text(n_documents: int, n_sentences: int = 12) -> str:
    """Documents with blank lines between them."""
    rng = np.random.default_rng(0)
    return "\n\n".join(
        " ".join(str(rng.choice(SENTENCES)).format(*rng.choice(NOUNS, 2), i) for _ in range(n_sentences))
        for i in range(n_documents)
    )


@pytest.fixture
def make(tmp_path: Path):
    """A data module over such documents."""
    (tmp_path / "corpus.txt").write_text(text(40), encoding="utf-8")

    def module(**changes) -> MLMDataModule:
        settings = {
            "source": str(tmp_path / "corpus.txt"),
            "document_separator": "\n\n",
            "validation_fraction": 0.2,
            "tokenizer_vocab_size": 200,
            "seq_len": 40,
            "batch_size": 4,
            "cache_dir": str(tmp_path / "cache"),
        }
        return prepared(MLMDataModule(**{**settings, **changes}))

    return module


def batches(module: MLMDataModule, epoch: int = 0) -> list[dict[str, torch.Tensor]]:
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


@pytest.mark.parametrize("whole_words", [False, True])
def test_every_row_is_cls_a_sep_b_sep(make, whole_words):
    module = make(whole_words=whole_words)
    ids = [module.tokenizer.token_to_id(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
    assert ids == [0, 1, 2, 3, 4]
    following = []
    for batch in batches(module):
        labels, mask, segments = batch["labels"], batch["attention_mask"], batch["token_type_ids"]
        original = torch.where(labels == IGNORED, batch["input_ids"], labels)
        lengths = mask.sum(1)
        assert batch["input_ids"].shape[1] % 8 == 0
        assert batch["input_ids"].shape[1] - lengths.max() < 8
        assert (lengths <= 40).all()
        assert ((original == 0) == (mask == 0)).all()
        assert not ((labels != IGNORED) & (original < 5)).any()
        for row, segment, length in zip(original, segments, lengths, strict=True):
            if length == 1:  # fills up the last batch
                continue
            seps = (row == 3).nonzero().flatten().tolist()
            assert row[0] == 2
            assert (row == 2).sum() == 1
            assert len(seps) == 2
            assert seps[1] == length - 1
            assert segment.tolist() == [int(seps[0] < i < length) for i in range(len(row))]
        positions, places = batch["masked_positions"], (labels != IGNORED)
        assert batch["target_tokens"] == places.sum()
        assert batch["target_pairs"] == (batch["next_sentence_label"] != IGNORED).sum()
        for row, chosen in zip(positions, places, strict=True):
            assert sorted(set(row.tolist()) - {0}) == chosen.nonzero().flatten().tolist()
        following += batch["next_sentence_label"].tolist()
    assert set(following) >= {0, 1}


def test_rows_are_a_function_of_seed_epoch_and_index(make):
    keys = [(0, 3), (0, 7), (1, 3)]
    rows, again = make().dataset("train"), make(num_workers=2, batch_size=2).dataset("train")
    together = rows.__getitems__(keys)
    for i, key in enumerate(keys):
        alone = again[key]
        length = int(alone["attention_mask"].sum())
        for name in ("input_ids", "labels", "token_type_ids"):
            assert torch.equal(together[name][i, :length], alone[name][:length])
    other_seed = make(seed=1).dataset("train")
    assert not torch.equal(other_seed[0, 3]["input_ids"], rows[0, 3]["input_ids"])


def test_an_epoch_draws_new_pairs_and_masks_and_evaluation_does_not(make):
    module = make()
    train, validation = module.dataset("train"), module.dataset("validation")
    changed = [not torch.equal(train[0, i]["input_ids"], train[1, i]["input_ids"]) for i in range(len(train))]
    assert np.mean(changed) > 0.9
    other = make(seed=5).dataset("validation")
    for i in range(len(validation)):
        for name, rows in validation[0, i].items():
            assert torch.equal(rows, validation[3, i][name])
            assert torch.equal(rows, other[0, i][name])


def test_the_mask_of_the_same_pair_differs_between_epochs(make):
    rows = make(mask_rate=0.3).dataset("train")
    pair = rows.segments([(0, 0)])
    rows.pairs.draw = lambda indices, uniforms: pair
    labels = [rows[epoch, 0]["labels"] for epoch in range(4)]
    assert len({tuple(row.tolist()) for row in labels}) == 4


def test_a_padding_row_has_one_real_token_and_no_target(make):
    batch = make().dataset("train").__getitems__([(0, 0), (0, -1)])
    assert batch["attention_mask"][1].sum() == 1
    assert batch["input_ids"][1, 0] == 2
    assert (batch["labels"][1] == IGNORED).all()
    assert batch["next_sentence_label"][1] == IGNORED


def test_workers_change_nothing(make):
    for alone, other in zip(batches(make()), batches(make(num_workers=2)), strict=True):
        assert all(torch.equal(rows, other[name]) for name, rows in alone.items())


LENGTHS = np.random.default_rng(0).integers(1, 100, 1003)


def test_buckets_hold_each_row_once_whatever_the_ranks():
    def sampler(rank=0, world_size=1, batch_size=4):
        return BucketBatchSampler(
            1003, batch_size, lambda epoch, rows: LENGTHS[rows], seed=3, rank=rank, world_size=world_size
        )

    one = sampler(batch_size=8).batches(2)
    two = [np.concatenate(pair) for pair in zip(sampler(0, 2).batches(2), sampler(1, 2).batches(2), strict=True)]
    assert [sorted(batch) for batch in one] == [sorted(batch) for batch in two]
    assert sorted(index for batch in one for index in batch if index >= 0) == list(range(1003))
    resumed = sampler(batch_size=8)
    resumed.epoch, resumed.position = 2, 53
    assert [[index for _, index in batch] for batch in resumed] == [batch.tolist() for batch in one[53:]]
    lengths = [[LENGTHS[i] for i in batch if i >= 0] for batch in one]
    padding = 1 - sum(map(sum, lengths)) / sum(max(batch) * len(batch) for batch in lengths)
    assert padding < 0.03  # half of it in batches at random
    means = [np.mean(batch) for batch in lengths[:32]]
    assert not np.all(np.diff(means) >= 0)  # the short ones do not all come first


def test_a_damaged_cache_is_made_again(make):
    before = make().dataset("train")[0, 0]["input_ids"]
    path = make().folder / "train.tokens.npy"
    raw = bytearray(path.read_bytes())
    raw[200] ^= 1
    path.write_bytes(raw)
    assert torch.equal(make().dataset("train")[0, 0]["input_ids"], before)


def test_word_starts_are_those_of_the_tokenizer(make):
    module = make(tokenizer_vocab_size=60)
    data, tokenizer = module.dataset("train").pairs.data, module.tokenizer
    pieces = [tokenizer.id_to_token(int(token)) for token in data.tokens[:2000]]
    assert (data.word_starts[:2000] == [not piece.startswith("##") for piece in pieces]).all()
    assert 0.1 < 1 - data.word_starts.mean() < 0.9


def test_further_sources_are_trained_on_and_not_validated_on(make, tmp_path):
    more = tmp_path / "more.txt"
    more.write_text("A zebra ran. A zebra slept.", encoding="utf-8")
    summary, before = make(more_sources=[str(more)]).summary(), make().summary()
    assert summary["train"]["documents"] == before["train"]["documents"] + 1
    assert summary["validation"] == {**before["validation"], "tokens": summary["validation"]["tokens"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seq_len": 4}, "seq_len is 4: a pair needs at least 5"),
        ({"mask_rate": 0.0}, "mask_rate is 0.0"),
        ({"short_share": 1.5}, "short_share is 1.5"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"tokenizer_vocab_size": 5}, "no room beside its 5 special tokens"),
        ({"tokenizer": "bpe", "tokenizer_vocab_size": 300}, r"the tokenizer has no \[PAD\] or <pad>, its pad_token"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, changes, message):
    with pytest.raises(InputError, match=message):
        make(**changes).prepare_data()


def test_documents_of_one_sentence_are_refused(make, tmp_path):
    (tmp_path / "corpus.txt").write_text("\n\n".join(f"Document {i} says nothing" for i in range(50)), encoding="utf-8")
    with pytest.raises(InputError, match=r"train split .* has 0 documents of two sentences or more: .* needs two"):
        make().setup("fit")


def test_one_document_is_too_few_for_next_sentences(make):
    with pytest.raises(
        InputError, match=r"has 1 document of two sentences or more: .* by --data\.document_separator '\\n\\n'$"
    ):
        make(document_separator=None).setup("fit")


def test_a_tokenizer_without_mask_is_refused(make, tmp_path):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "river"]
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match=r"the tokenizer has no \[MASK\] or <mask>, its mask_token"):
        make(tokenizer=str(tmp_path / "tokenizer.json")).prepare_data()


# ---- audits: nothing but the relation of A and B may tell whether B follows A


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> MLMDataModule:
    module = MLMDataModule(cache_dir=str(tmp_path_factory.mktemp("cache")), tokenizer_vocab_size=4096)
    module.prepare_data()
    return module


def segments(module: MLMDataModule, epochs: range):
    """A, B and whether B follows, of all pairs of some epochs."""
    rows = module.dataset("train")
    tokens = rows.data.tokens
    for starts, ends, is_next in zip(*rows.segments([(e, i) for e in epochs for i in range(len(rows))]), strict=True):
        yield tokens[starts[0] : ends[0]], tokens[starts[1] : ends[1]], bool(is_next)


def counts(tokens: np.ndarray, n: int) -> np.ndarray:
    return np.bincount(tokens, minlength=n).astype(np.float32)


def shape_and_punctuation(a: np.ndarray, b: np.ndarray, punctuation: list[int], word: np.ndarray) -> np.ndarray:
    """Lengths, the counts of each mark in each segment, and what each begins and ends with."""
    ends = [token == mark for token in (a[0], a[-1], b[0], b[-1]) for mark in punctuation]
    marks = [(segment == mark).sum() for segment in (a, b) for mark in punctuation]
    starts = [not word[a[0]], not word[b[0]], not word[a[-1]], not word[b[-1]]]
    return np.array([len(a), len(b), len(a) + len(b), len(a) * len(b) / 60, *marks, *ends, *starts], dtype=np.float32)


def held_out_accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Of a logistic regression on standardised features, fitted to four fifths."""
    torch.manual_seed(0)
    features = (features - features.mean(0)) / (features.std(0) + 1e-6)
    x, y = torch.from_numpy(features), torch.from_numpy(labels).long()
    cut = len(y) * 4 // 5
    model = torch.nn.Linear(x.shape[1], 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(40):
        loss = cross_entropy(model(x[:cut]), y[:cut])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (model(x[cut:]).argmax(1) == y[cut:]).float().mean().item()


@pytest.mark.slow
def test_no_segment_alone_and_no_length_or_mark_gives_the_label_away(embedded):
    tokenizer, n = embedded.tokenizer, embedded.vocab_size
    punctuation = [tokenizer.token_to_id(mark) for mark in ".,;:!?()\"'-"]
    word = np.array([not tokenizer.id_to_token(i).startswith("##") for i in range(n)])
    first, second, shape, overlap, labels = [], [], [], [], []
    for a, b, is_next in segments(embedded, range(2)):
        first.append(counts(a, n))
        second.append(counts(b, n))
        shape.append(shape_and_punctuation(a, b, punctuation, word))
        overlap.append([len(np.intersect1d(a, b)), len(a), len(b)])
        labels.append(is_next)
    labels = np.array(labels)
    chance = 0.5 + 3 * 0.5 / np.sqrt(len(labels) / 5)
    assert abs(labels.mean() - 0.5) < 3 * 0.5 / np.sqrt(len(labels))
    assert held_out_accuracy(np.stack(first), labels) < chance
    assert held_out_accuracy(np.stack(second), labels) < chance
    assert held_out_accuracy(np.stack(shape), labels) < chance
    # the audit can find what there is to find: the words that A and B share
    assert held_out_accuracy(np.array(overlap, dtype=np.float32), labels) > 0.7


# ---- whole documents


def test_documents_are_cut_only_where_they_are_too_long(make):
    """In evaluation every token is in one row, in order; in training each row is a full piece, another each epoch."""
    module = make(next_sentence=False, mask_rate=0.15)
    rows = module.dataset("validation")
    data, ids = rows.data, rows.special_ids
    begins = data.sentences[data.documents]
    found: list[int] = []
    for index in range(len(rows)):
        batch = rows[0, index]
        row = torch.where(batch["labels"] != IGNORED, batch["labels"], batch["input_ids"])[batch["attention_mask"] == 1]
        assert (row[0], row[-1]) == (ids["cls_token"], ids["sep_token"])
        found += row[1:-1].tolist()
    assert found == data.tokens.tolist()
    assert len(rows) == sum(-(-(b - a) // 38) for a, b in pairwise(begins))

    training = module.dataset("train")
    lengths = np.diff(training.token_of)
    assert (lengths > 38).all()
    draws = [[training[epoch, index] for index in range(len(training))] for epoch in (0, 0, 1)]
    assert all(row["attention_mask"].sum() == 40 for row in draws[0])
    first, again, later = ([row["input_ids"] for row in rows] for rows in draws)
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, later))


def test_a_document_of_one_sentence_is_one_too(make, tmp_path):
    (tmp_path / "corpus.txt").write_text("\n\n".join(f"Document {i} says nothing" for i in range(50)), encoding="utf-8")
    assert len(make(next_sentence=False).dataset("train")) > 20


def test_batches_of_documents_know_their_targets(make):
    module = make(next_sentence=False)
    batch = next(iter(module.train_dataloader()))
    assert "next_sentence_label" not in batch
    assert "target_pairs" not in batch
    assert batch["target_tokens"] == (batch["labels"] != IGNORED).sum()
    assert (batch["labels"].gather(1, batch["masked_positions"]) != IGNORED).sum() == batch["target_tokens"]
    empty = module.dataset("train").__getitems__([(0, -1)])
    assert (empty["labels"] == IGNORED).all()


# ---- tokenizers from outside, and other scripts


def test_random_replacements_are_tokens_that_are_there(make, tmp_path):
    tokenizer = pieces_with_gaps(
        ["the", "was", "old", "many", "say", "that", "one", "and", "are", "alike", *NOUNS, *".!?"]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "corpus.txt").write_text("\n\n".join(["The river was old. Many say that one bridge was old!"] * 40))
    module = make(tokenizer=str(tmp_path), mask_rate=0.5)
    there = set(tokenizer.get_vocab().values())
    found = [id_ for batch in batches(module) for id_ in batch["input_ids"].flatten().tolist()]
    assert set(found) <= there
    assert max(found) > 1 << 16
    assert module.vocab_size == max(there) + 1
    drawn = set(module.dataset("train").masking.ordinary_ids.tolist())
    assert drawn == there - set(range(5))


def test_a_tokenizer_whose_file_is_replaced_is_not_served_from_the_cache(make, tmp_path):
    words = ["the", "was", "old", "river", "."]
    (tmp_path / "corpus.txt").write_text("\n\n".join(["The river was old. The old river was the river."] * 40))
    for gap in (100, 200):
        pieces_with_gaps(words, gap).save(str(tmp_path / "tokenizer.json"))
        assert make(tokenizer=str(tmp_path)).vocab_size == gap + 9


@pytest.mark.parametrize("sentence", ["第{}天下雨了。", "本当に{}時ですか？", "วันนี้{}โมง "], ids=["zh", "ja", "th"])
def test_documents_without_spaces_have_sentences(make, tmp_path, sentence):
    documents = ["".join(sentence.format("一二三四五六"[(i + j) % 6]) for j in range(6)) for i in range(30)]
    (tmp_path / "corpus.txt").write_text("\n\n".join(documents), encoding="utf-8")
    module = make(test_fraction=0.0)
    counts = module.summary()
    assert counts["train"]["documents"] + counts["validation"]["documents"] == 30
    assert counts["train"]["sentences"] == 6 * counts["train"]["documents"]


def test_documents_that_are_too_short_are_counted_with_the_reason(make, tmp_path, capsys):
    short = [f"One sentence {i}" for i in range(20)]
    (tmp_path / "corpus.txt").write_text("\n\n".join([text(20), *short]), encoding="utf-8")
    module = make(test_fraction=0.0)
    counts = module.summary()
    kept = sum(split["documents"] for split in counts.values())
    left_out = [split.get("documents of fewer than two sentences, left out", 0) for split in counts.values()]
    assert (kept, sum(left_out)) == (20, 20)
    out = capsys.readouterr().out
    assert (
        f"{left_out[0]} of {left_out[0] + counts['train']['documents']} documents, of fewer than two sentences" in out
    )
