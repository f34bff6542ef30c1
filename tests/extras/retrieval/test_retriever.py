"""The retriever: its loss by hand, its metrics by brute force, and real passages found."""

import json

import lightning as L
import numpy as np
import pytest
import torch

from src.data import MLMDataModule
from src.errors import InputError
from src.extras.retrieval.data import RetrieverDataModule
from src.extras.retrieval.tasks import RetrieverModule
from src.models import BERTConfig
from src.optim import Constant
from tests.conftest import prepared

SHAPE = {"max_seq_len": 48, "d_model": 32, "n_heads": 2, "n_layers": 1, "dropout": 0.0, "attention_dropout": 0.0}
SHAPE |= {"norm": "pre", "init_std": 0.18}
QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


@pytest.fixture
def make(tmp_path):
    """A data module over documents that each keep to words of their own."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), 4)) for _ in range(120)]
    texts = []
    for i in range(60):
        own = rng.choice(words[i * 2 % 100 : i * 2 % 100 + 12], 9)
        texts.append(" ".join(" ".join(rng.choice(own, 7)).capitalize() + "." for _ in range(8)))
    (tmp_path / "corpus.txt").write_text("\n\n".join(texts), encoding="utf-8")

    def module(kind=RetrieverDataModule, **changes):
        settings = {"source": str(tmp_path / "corpus.txt"), "document_separator": "\n\n", "validation_fraction": 0.2}
        settings |= {"test_fraction": 0.0, "tokenizer_vocab_size": 300, "query_len": 24, "seq_len": 48}
        settings |= {"passage_len": 40, "keep": 0.0, "batch_size": 8, "cache_dir": str(tmp_path / "cache")}
        return prepared(kind(**{**settings, **changes}))

    return module


def task(module, lr=3e-3, **settings):
    L.seed_everything(0, verbose=False)
    config = BERTConfig(vocab_size=module.vocab_size, **SHAPE)
    return RetrieverModule(config, optimizer=lambda p: torch.optim.AdamW(p, lr=lr), schedule=Constant(), **settings)


def attached(module, **settings):
    """A task with its network and trainer, as it is when it trains."""
    made = task(module, **settings)
    made.trainer = L.Trainer(max_steps=1, **QUIET)
    made.configure_model()
    return made


def by_hand(model, batch, temperature):
    """The summed loss in float64, a query at a time; what it may be told from is a set of passages."""
    model = model.double()
    group = batch["input_ids"].shape[1]
    encode = lambda ids, mask: model.encode(ids[None], mask[None])[0]  # noqa: E731
    flat = [batch[name].flatten(0, 1) for name in ("input_ids", "attention_mask")]
    passages = [encode(ids, mask) for ids, mask in zip(*flat, strict=True)]
    numbers = batch["passage_numbers"].flatten().tolist()
    total = 0.0
    for i, label in enumerate(batch["labels"].tolist()):
        if label < 0:
            continue
        query, own = encode(batch["query_input_ids"][i], batch["query_attention_mask"][i]), i * group
        others = [j for j, n in enumerate(numbers) if n >= 0 and (j == own or n != numbers[own])]
        cosines = torch.stack([torch.cosine_similarity(query, passages[j], dim=0) for j in others]) / temperature
        total -= torch.log_softmax(cosines, 0)[others.index(own)].item()
    return total


@pytest.mark.parametrize("negatives", [0, 2])
def test_the_loss_is_the_cross_entropy_of_the_cosines(make, negatives):
    module = make(negatives=negatives)
    made = attached(module, temperature=0.1)
    batch = module.dataset("train").__getitems__([(0, 0), (0, 5), (0, -1), (0, 9)])
    batch["passage_numbers"][3, 0] = batch["passage_numbers"][0, 0]  # two queries of one passage
    with torch.no_grad():
        found = made.summed_losses(made.model(**made.inputs(batch)), batch)["loss"]
        assert found.item() == pytest.approx(by_hand(made.model, batch, 0.1), rel=1e-5)


def test_a_padded_row_and_its_passage_change_nothing(make):
    module = make(negatives=1)
    made = attached(module)
    keys = [(0, 0), (0, 5)]
    rows = module.dataset("train")
    short, padded = rows.__getitems__(keys), rows.__getitems__([*keys, (0, -1), (0, -1)])
    with torch.no_grad():
        losses = [made.summed_losses(made.model(**made.inputs(batch)), batch)["loss"] for batch in (short, padded)]
    torch.testing.assert_close(*losses)


def test_evaluation_ranks_all_passages_of_the_split(make):
    module = make(eval_batch_size=5)
    made = task(module)
    trainer = L.Trainer(**QUIET)
    (found,) = trainer.validate(made, module, verbose=False)
    rows = module.dataset("validation")
    batch = rows.__getitems__([(0, i) for i in range(len(rows))])
    with torch.no_grad():
        queries, passages = made.model(**made.inputs(batch))
        ranks = 1 + ((queries @ passages.T) > (queries * passages).sum(1)[:, None] + 1e-6).sum(1)
        loss = made.summed_losses((queries, passages), batch)["loss"] / len(rows)
    assert len(rows) % 5
    assert found["val/mrr"] == pytest.approx((1 / ranks).mean().item(), abs=1e-4)
    assert found["val/accuracy"] == pytest.approx((ranks == 1).float().mean().item(), abs=1e-4)
    assert found["val/loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_a_passage_in_other_words_is_found(make, tmp_path):
    """Passages say in words of their own what queries say in others: rows that are held out are found, too."""
    rng = np.random.default_rng(0)
    asked, said = ([f"{letter}{i:02}" for i in range(20)] for letter in "qp")
    drawn = [rng.choice(20, 3, replace=False) for _ in range(400)]
    rows = [{"query": " ".join(asked[i] for i in d), "positive": " ".join(said[i] for i in d)} for d in drawn]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    module = make(source=str(tmp_path / "rows.jsonl"), query_column="query", batch_size=32)
    made = task(module, lr=1e-2)
    before = L.Trainer(**QUIET).validate(made, module, verbose=False)[0]["val/mrr"]
    settings = {**QUIET, "enable_checkpointing": False, "limit_val_batches": 0, "use_distributed_sampler": False}
    L.Trainer(max_steps=80, **settings).fit(made, module)
    after = L.Trainer(**QUIET).validate(made, module, verbose=False)[0]["val/mrr"]
    assert before < 0.3
    assert after > 0.7


def test_what_cannot_be_is_refused(make):
    with pytest.raises(ValueError, match="temperature is 0"):
        task(make(), temperature=0)
    with pytest.raises(InputError, match="RetrieverModule trains on RetrieverDataModule, not on MLMDataModule"):
        task(make()).check_data(MLMDataModule())
    with pytest.raises(InputError, match=r"data\.seq_len 64 is more"):
        task(make()).check_data(make(seq_len=64))
