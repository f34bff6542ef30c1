"""The data module for language modelling: what is prepared, when it is prepared again, and what a trainer is given."""

import json
import math
import multiprocessing
import os
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from src.data import LMDataModule
from src.data.store import IGNORED
from src.decoding import encode_prompt
from src.errors import InputError
from src.tokenization import END_OF_TEXT, UNKNOWN, byte_tokenizer, start_ids
from tests.conftest import prepared
from tests.outside import letters_with_gaps, llama_like, with_template, without_unknown

TEXTS = [f"Document {i} tells of the number {i * i}, and of é. " * (1 + i % 3) for i in range(60)]


@pytest.fixture
def make(tmp_path: Path):
    """A data module over sixty short documents."""
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")

    def module(**changes) -> LMDataModule:
        settings = {
            "source": str(path),
            "validation_fraction": 0.1,
            "test_fraction": 0.1,
            "tokenizer": "byte",
            "seq_len": 16,
            "batch_size": 4,
            "cache_dir": str(tmp_path / "cache"),
        }
        return prepared(LMDataModule(**{**settings, **changes}))

    return module


def caches(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").iterdir() if path.name.startswith("LMDataModule") and path.is_dir()]


def decoded(module: LMDataModule, split: str) -> list[str]:
    ids = np.load(module.folder / f"{split}.npy")
    return module.tokenizer.decode(ids.tolist(), skip_special_tokens=False).split(END_OF_TEXT)[:-1]


def targets(batches) -> list[int]:
    labels = torch.cat([batch["labels"].flatten() for batch in batches])
    return labels[labels != IGNORED].tolist()


# ---- what is prepared


@pytest.mark.parametrize("tokenizer", ["bpe", "byte", "char"])
def test_every_document_is_in_one_split_with_an_end_token(make, tokenizer):
    module = make(tokenizer=tokenizer, tokenizer_vocab_size=300)
    found = {split: decoded(module, split) for split in ("train", "validation", "test")}
    # a character of the other splits may be unknown
    assert [len(texts) for texts in found.values()] == [48, 6, 6]
    assert sorted(text for texts in found.values() for text in texts) == sorted(TEXTS)


def test_the_summary_and_the_bytes_are_those_of_the_documents(make):
    module = make(seq_len=7)
    for split, counts in module.summary().items():
        texts = decoded(module, split)
        n_bytes = sum(len(text.encode()) for text in texts)
        blocks = len(module.dataset(split))
        assert counts == {
            "documents": len(texts),
            "bytes": n_bytes,
            "tokens": n_bytes + len(texts),
            "blocks": blocks,
        }
        assert module.bytes_per_token(split) == n_bytes / (n_bytes + len(texts) - 1)


def test_the_tokenizer_is_trained_on_the_training_documents_alone(make, tmp_path):
    rows = [{"text": "plain words only " * 20}] * 3
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "validation.jsonl").write_text(json.dumps({"text": "QQQQ QQQQ " * 50}))
    files = {
        "source": str(tmp_path / "train.jsonl"),
        "validation_source": str(tmp_path / "validation.jsonl"),
        "test_fraction": 0.0,
    }
    characters = make(tokenizer="char", **files)
    assert characters.vocab_size == len(set("plain words only ")) + 2
    assert set(decoded(characters, "validation")[0]) == set(UNKNOWN + " ")
    assert "QQ" not in make(tokenizer="bpe", tokenizer_vocab_size=280, **files).tokenizer.get_vocab()


def test_the_embedded_corpus_needs_no_source(embedded):
    summary = embedded.summary()
    assert {split: counts["documents"] for split, counts in summary.items()} == {
        "train": 96,
        "validation": 5,
        "test": 5,
    }
    assert embedded.vocab_size == 2000
    assert embedded.special_tokens == {"eos_token": END_OF_TEXT}
    assert all(2.5 < embedded.bytes_per_token(split) < 4 for split in summary)


def test_an_own_tokenizer_with_its_end_token_is_taken(make, tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens(["</s>"])
    (tmp_path / "mine").mkdir()
    tokenizer.save(str(tmp_path / "mine" / "tokenizer.json"))
    module = make(tokenizer=str(tmp_path / "mine"), end_token="</s>")
    assert module.special_tokens == {"eos_token": "</s>"}
    ids = np.load(module.folder / "train.npy")
    assert (ids == tokenizer.token_to_id("</s>")).sum() == 48
    with pytest.raises(InputError, match=r"\[EOS\].*end_token.*</s>"):
        make(tokenizer=str(tmp_path / "mine"), end_token="[EOS]").prepare_data()


# ---- when it is prepared again


def stamp(module: LMDataModule) -> int:
    return (module.folder / "train.npy").stat().st_ino


def test_a_restart_does_not_prepare_again_and_does_not_read_the_source(make, tmp_path):
    before = stamp(make())
    source = tmp_path / "corpus.jsonl"
    times = source.stat().st_atime_ns, source.stat().st_mtime_ns
    source.write_bytes(b"\xff" * source.stat().st_size)  # not UTF-8: reading it would fail
    os.utime(source, ns=times)
    again = make(seq_len=8, batch_size=2, seed=5)
    assert stamp(again) == before
    assert again.vocab_size == 257


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer": "char"},
        {"validation_fraction": 0.2},
        {"max_documents": 50},
        {"document_separator": "\n"},
    ],
)
def test_what_shapes_the_data_has_a_cache_of_its_own(make, tmp_path, change):
    make().prepare_data()
    make(**change).prepare_data()
    assert len(caches(tmp_path)) == 2


def test_a_changed_source_or_tokenizer_is_prepared_again(make, tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    make(tokenizer=str(tmp_path)).prepare_data()
    tokenizer.add_tokens(["Document"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert make(tokenizer=str(tmp_path)).vocab_size == 258
    with (tmp_path / "corpus.jsonl").open("a") as file:
        file.write('{"text": "one more"}\n')
    assert sum(counts["documents"] for counts in make(tokenizer=str(tmp_path)).summary().values()) == 61


@pytest.mark.parametrize("name", ["train.npy", "validation.starts.npy", "info.json", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_cache_is_made_anew(make, name, damage):
    module = make()
    file = module.folder / name
    whole = file.read_bytes()
    if damage == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        file.write_bytes(b"\x00" + whole[1:] if whole[0] else b"\x01" + whole[1:])
    else:
        file.unlink()
    assert (make().folder / name).read_bytes() == whole


def test_what_a_killed_process_left_does_no_harm(make, tmp_path):
    folder = make().folder
    folder.rename(f"{folder}.partial")
    (tmp_path / "cache" / f"{folder.name}.partial" / "train.npy").write_bytes(b"half")
    assert decoded(make(), "train")
    assert caches(tmp_path) == [folder]


def _prepare(arguments, barrier, results):
    barrier.wait()
    module = prepared(LMDataModule(**arguments))
    results.put((module.vocab_size, stamp(module), targets(module.val_dataloader())))


@pytest.mark.slow
def test_processes_that_prepare_at_once_share_one_cache(make, tmp_path):
    arguments = {
        "source": str(tmp_path / "corpus.jsonl"),
        "seq_len": 16,
        "tokenizer_vocab_size": 300,
        "cache_dir": str(tmp_path / "cache"),
    }
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_prepare, args=(arguments, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    first, second = results.get(timeout=120), results.get(timeout=120)
    for process in processes:
        process.join()
    assert first == second
    assert len(caches(tmp_path)) == 1


# ---- what a trainer is given


def test_a_training_epoch_has_each_block_once_and_the_next_one_other_blocks(make):
    module = make()
    loader = module.train_dataloader()

    def epoch(number: int) -> list[list[int]]:
        loader.sampler.set_epoch(number)
        return [row.tolist() for batch in loader for row in batch["input_ids"][(batch["labels"] != IGNORED).any(1)]]

    ids = np.load(module.folder / "train.npy").tolist()
    first, second = epoch(0), epoch(1)
    offset = module.dataset("train").offset(0)
    in_order = [ids[offset + 16 * i : offset + 16 * (i + 1)] for i in range(len(first))]
    assert sorted(first) == sorted(in_order)
    assert first != in_order
    assert sorted(first) != sorted(second)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_has_every_token_but_the_first_as_a_target_once(make, split):
    module = make(eval_batch_size=3)
    loader = {"validation": module.val_dataloader, "test": module.test_dataloader}[split]()
    ids = np.load(module.folder / f"{split}.npy").tolist()
    assert targets(loader) == ids[1:]
    assert len(next(iter(loader))["input_ids"]) == 3
    if split == "test":
        assert targets(module.predict_dataloader()) == ids[1:]


def test_batches_are_those_of_the_seed_whatever_the_workers(make):
    def batches(**changes) -> list[list[int]]:
        return [batch["input_ids"].flatten().tolist() for batch in make(**changes).train_dataloader()]

    assert batches(num_workers=2) == batches()
    assert batches(seed=1) != batches()


def test_an_evaluation_has_the_workers_of_training(make):
    alone, helped = (make(num_workers=n).val_dataloader() for n in (0, 2))
    assert (alone.num_workers, helped.num_workers) == (0, 2)
    assert alone.pin_memory == helped.pin_memory == torch.cuda.is_available()
    assert targets(helped) == targets(alone)


class Bigrams(L.LightningModule):
    """The smallest language model, which writes down what it is given."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.logits = torch.nn.Embedding(vocab_size, vocab_size)
        self.counts, self.validated = [], 0

    def summed_loss(self, batch):
        logits = self.logits(batch["input_ids"])
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORED, reduction="sum"
        )

    def training_step(self, batch):
        self.counts.append(float(batch["target_tokens"]))
        return self.summed_loss(batch) / batch["target_tokens"]

    def validation_step(self, batch):
        self.validated += int((batch["labels"] != IGNORED).sum())
        self.log("loss", self.summed_loss(batch), reduce_fx="sum")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


def fit(module: LMDataModule, folder: Path, **options) -> Bigrams:
    model = Bigrams(module.vocab_size)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    settings = {"accelerator": "cpu", "num_sanity_val_steps": 0, "default_root_dir": folder, **quiet, **options}
    L.Trainer(**settings).fit(model, datamodule=module)
    return model


def test_lightning_trains_with_it(make, tmp_path):
    module = make()
    model = fit(module, tmp_path, max_epochs=2, accumulate_grad_batches=2)
    assert len(model.counts) == 2 * len(module.train_dataloader())
    assert model.counts[0] == 4 * 16
    assert model.validated == 2 * (module.summary()["validation"]["tokens"] - 1)
    validation = model.trainer.callback_metrics["loss"] / (module.summary()["validation"]["tokens"] - 1)
    assert validation < math.log(257) - 1


@pytest.mark.parametrize("workers", [0, 2])
def test_lightning_trains_with_a_stream(make, tmp_path, workers):
    module = make(streaming=True, holdout_documents=6, num_workers=workers)
    model = fit(module, tmp_path, max_steps=6, limit_val_batches=2, val_check_interval=3)
    assert model.counts == [64.0] * 6
    assert set(module.summary()) == {"validation", "test"}
    assert decoded(module, "validation") == TEXTS[:6]
    assert decoded(module, "test") == TEXTS[6:12]


# ---- bad input


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"seq_len": 0}, "seq_len is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"eval_batch_size": -1}, "eval_batch_size is -1"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"tokenizer": "bpee"}, "'bpee'"),
        ({"tokenizer": "bpe", "tokenizer_vocab_size": 10}, "10"),
        ({"end_token": "</s>"}, "'</s>'"),
        ({"source": "/nowhere/at/all.txt"}, "/nowhere/at/all.txt"),
        ({"text_column": "body"}, "has no column 'body': it has 'text'; name it by --data.text_column"),
        ({"streaming": True, "holdout_documents": 30}, "holdout_documents"),
        ({"streaming": True, "holdout_documents": 60}, "holdout_documents"),
    ],
)
def test_bad_input_is_refused_in_one_line(make, changes, fault):
    with pytest.raises(InputError) as refused:
        make(**changes).prepare_data()
    assert fault in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("split", "stage"), [("validation", "fit"), ("test", "test")])
def test_a_split_that_is_missing_or_too_short_is_refused_before_training(make, split, stage):
    with pytest.raises(InputError, match=f"no {split} split"):
        make(**{f"{split}_fraction": 0.0}).setup(stage)
    with pytest.raises(InputError, match=rf"{split} split has \d+ tokens.*seq_len 2000"):
        make(seq_len=2000).setup(stage)


def test_a_corpus_without_any_text_is_refused(make, tmp_path):
    (tmp_path / "blank.txt").write_text(" \n\n ")
    with pytest.raises(InputError, match=r"train split of .*blank.txt has no document"):
        make(source=str(tmp_path / "blank.txt")).prepare_data()


def test_a_cache_dir_that_is_no_folder_is_refused(make, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cache_dir .*file"):
        make(cache_dir=str(tmp_path / "file")).prepare_data()


def test_rows_without_text_are_counted(make, tmp_path, capsys):
    rows = [{"text": text} for text in [*TEXTS, "", None, " "]]
    (tmp_path / "gaps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    make(source=str(tmp_path / "gaps.jsonl"), test_fraction=0.0, validation_fraction=0.0).prepare_data()
    out = capsys.readouterr().out
    assert "left out of the train split: 2 rows, empty (row 61, row 63)" in out
    assert "left out of the train split: 1 row, no text (row 62)" in out


def test_ids_that_a_tokenizer_leaves_out_count_for_the_vocabulary(make, tmp_path):
    letters_with_gaps("".join(sorted(set("".join(TEXTS)))), 99).save(str(tmp_path / "tokenizer.json"))
    assert make(tokenizer=str(tmp_path), end_token="</s>").vocab_size == 100


def test_documents_are_told_apart_by_their_end_tokens(make):
    """An end token begins the next document, as the empty prompt does."""
    module = make(separate_documents=True)
    end = module.tokenizer.token_to_id(END_OF_TEXT)
    ids = torch.tensor([[7, 8, end, 9, end, end, 5], [end, 1, 2, 3, 4, 5, 6]])
    found = module.on_before_batch_transfer({"input_ids": ids}, 0)
    assert found["documents"].tolist() == [[0, 0, 1, 1, 2, 3, 3], [1] * 7]
    assert make().on_before_batch_transfer({"input_ids": ids}, 0).keys() == {"input_ids"}


def test_there_may_be_more_embeddings_than_ids(make):
    ids = make().vocab_size
    assert make(padded_vocab_size=ids + 7).vocab_size == ids + 7
    with pytest.raises(InputError, match=f"padded_vocab_size is {ids - 1}: the tokenizer has {ids} ids"):
        make(padded_vocab_size=ids - 1).vocab_size  # noqa: B018


# ---- tokenizers from outside


def save(tokenizer: Tokenizer, folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder)


def test_a_tokenizer_that_drops_characters_is_refused(make, tmp_path):
    mine = save(without_unknown("abcdefghijklmnopqrstuvwxyz .,"), tmp_path / "mine")
    with pytest.raises(
        InputError, match=r"characters of the train split of .*corpus.jsonl \('D' \d+, .*take a tokenizer"
    ):
        make(tokenizer=mine, end_token="</s>").prepare_data()


def test_bits_a_byte_are_of_the_bytes_that_are_represented(make, tmp_path, capsys):
    text = "plain words only. " * 20
    (tmp_path / "euro.jsonl").write_text(json.dumps({"text": f"{text}€"}) + "\n")
    mine = save(without_unknown("abcdefghijklmnopqrstuvwxyz."), tmp_path / "mine")
    files = {"source": str(tmp_path / "corpus.jsonl"), "validation_source": str(tmp_path / "euro.jsonl")}
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for _ in range(9)))
    module = make(tokenizer=mine, end_token="</s>", test_fraction=0.0, **files)
    counts = module.summary()["validation"]
    assert counts["bytes"] == len(text) + 3
    assert counts["bytes not represented"] == 3
    assert "bytes not represented" not in module.summary()["train"]
    assert module.bytes_per_token("validation") == len(text) / (counts["tokens"] - 1)
    assert "the tokenizer cannot represent 1 of 361 characters of the validation split" in capsys.readouterr().out


def test_a_template_changes_nothing_of_the_documents(make, tmp_path):
    plain = save(llama_like(), tmp_path / "plain")
    template = save(with_template(llama_like()), tmp_path / "template")
    first, second = (make(tokenizer=kind, end_token="</s>") for kind in (plain, template))
    assert first.info == second.info
    assert targets(first.val_dataloader()) == targets(second.val_dataloader())


@pytest.mark.parametrize("streaming", [False, True])
def test_a_start_token_begins_each_document_behind_the_end_of_the_one_before(make, tmp_path, streaming):
    settings = {"tokenizer": save(with_template(llama_like()), tmp_path / "mine"), "end_token": "</s>"}
    settings |= {"streaming": streaming, "holdout_documents": 5} if streaming else {}
    module = make(**settings, start_token="<s>", separate_documents=True, seq_len=200)
    module.setup("fit")
    start, end = (module.tokenizer.token_to_id(token) for token in ("<s>", "</s>"))
    batch = next(iter(module.train_dataloader()))  # a stream has no end
    ids, followed = batch["input_ids"], batch["labels"]
    assert (ids == end).any()
    assert torch.equal(followed[ids == end], torch.full_like(followed[ids == end], start))
    found = module.on_before_batch_transfer(batch, 0)["documents"]
    assert torch.equal(found.diff() == 1, (ids == start)[:, 1:])
    assert module.special_tokens["bos_token"] == "<s>"
    assert encode_prompt(module.tokenizer, "a", end, start_ids(module.tokenizer, module.special_tokens))[0] == start
    assert module.folder != make(**settings).folder


def test_a_start_token_that_the_tokenizer_does_not_put_before_a_text_is_refused(make, tmp_path):
    mine = save(llama_like(), tmp_path / "mine")
    with pytest.raises(InputError, match="the tokenizer does not put '<s>' before a text"):
        make(tokenizer=mine, end_token="</s>", start_token="<s>").prepare_data()
