"""The reranker: its loss by hand, its encoder out of other checkpoints, and hard negatives told apart."""

import lightning as L
import pytest
import torch

from src.errors import InputError
from src.extras.retrieval.bi_encoder import BiEncoder
from src.extras.retrieval.data import RerankerDataModule
from src.extras.retrieval.tasks import RerankerModule
from src.models import BERT, BERTClassifierConfig, BERTConfig
from src.optim import Constant
from tests.extras.retrieval.test_retriever import QUIET, SHAPE, make  # noqa: F401


def task(module, lr=2e-3, **settings):
    L.seed_everything(0, verbose=False)
    config = BERTClassifierConfig(vocab_size=module.vocab_size, **SHAPE)
    return RerankerModule(config, optimizer=lambda p: torch.optim.AdamW(p, lr=lr), schedule=Constant(), **settings)


def attached(module, **settings):
    made = task(module, **settings)
    made.trainer = L.Trainer(max_steps=1, **QUIET)
    made.trainer.datamodule = module
    made.configure_model()
    return made


def test_the_loss_is_the_cross_entropy_within_the_group(make):  # noqa: F811
    module = make(RerankerDataModule, negatives=3)
    made = attached(module)
    batch = module.dataset("train").__getitems__([(0, 0), (0, -1), (0, 7)])
    batch["passage_numbers"][2, 3] = -1  # a group with a passage fewer
    expected = 0.0
    model = made.model.double()
    for i, present in ((0, 4), (2, 3)):
        rows = {name: batch[name][i, :present] for name in ("input_ids", "token_type_ids", "attention_mask")}
        scores = torch.cat([model(**{name: row[j : j + 1] for name, row in rows.items()})[0] for j in range(present)])
        expected -= torch.log_softmax(scores, 0)[0].item()
    made.model.float()
    with torch.no_grad():
        found = made.summed_losses(made.model(**made.inputs(batch)), batch)["loss"]
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert made.model.config.n_labels == 1


@pytest.mark.parametrize("kind", ["bert", "bi_encoder"])
def test_it_starts_from_the_encoder_of_another_network(make, kind):  # noqa: F811
    module = make(RerankerDataModule, negatives=1)
    config = BERTConfig(vocab_size=module.vocab_size, **SHAPE)
    torch.manual_seed(5)
    source = BERT(config) if kind == "bert" else BiEncoder(config)
    weights = {f"model.{name}": weight for name, weight in source.state_dict().items()}
    checkpoint = {"architecture": kind, "model_config": vars(config), "state_dict": weights}
    checkpoint["tokenizer"] = module.tokenizer.to_str()
    made = attached(module)
    made.load_pretrained(made.model, checkpoint)
    held = made.model.encoder.state_dict()
    for name, weight in source.encoder.state_dict().items():
        torch.testing.assert_close(held[name], weight, rtol=0, atol=0)
    with pytest.raises(InputError, match="n_layers 2, this configuration 1"):
        made.load_pretrained(made.model, {**checkpoint, "model_config": {**vars(config), "n_layers": 2}})
    with pytest.raises(InputError, match="the checkpoint holds a gpt"):
        made.load_pretrained(made.model, {**checkpoint, "architecture": "gpt"})


def test_evaluation_counts_each_query_once(make):  # noqa: F811
    module = make(RerankerDataModule, negatives=3, eval_batch_size=5)
    made = task(module)
    (found,) = L.Trainer(**QUIET).validate(made, module, verbose=False)
    rows = module.dataset("validation")
    batch = rows.__getitems__([(0, i) for i in range(len(rows))])
    with torch.no_grad():
        outputs = made.model(**made.inputs(batch))
        scores = made.scores(outputs, batch)
        ranks = 1 + (scores[:, 1:] >= scores[:, :1]).sum(1)
        loss = made.summed_losses(outputs, batch)["loss"] / len(rows)
    assert found["val/loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert found["val/mrr"] == pytest.approx((1 / ranks).mean().item(), abs=1e-5)
    assert found["val/accuracy"] == pytest.approx((ranks == 1).float().mean().item(), abs=1e-5)


def test_what_it_must_learn_is_learnt(make):  # noqa: F811
    """A few groups, seen again and again: the loss goes to nothing, so that gradients reach every layer."""
    module = make(RerankerDataModule, negatives=3)
    made = attached(module)
    batch = module.dataset("train").__getitems__([(0, i) for i in range(6)])
    optimizer = torch.optim.AdamW(made.model.parameters(), lr=3e-3)
    losses = []
    for _ in range(80):
        loss = made.summed_losses(made.model(**made.inputs(batch)), batch)["loss"] / 6
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(torch.tensor(4.0).log().item(), abs=0.5)
    assert losses[-1] < 0.1
