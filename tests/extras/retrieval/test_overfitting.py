"""`trainer.overfit_batches`: the same negatives in every epoch, too."""

import pytest
import torch

from tests.data.test_overfitting import fit  # noqa: F401
from tests.extras.retrieval.conftest import write_config
from tests.reliability.runs import assert_same


@pytest.mark.parametrize("kind", ["retriever", "reranker"])
def test_every_epoch_has_the_same_batches(fit, kind):  # noqa: F811
    batches = fit(kind, write=write_config, overfit_batches=2, max_epochs=3)
    assert len(batches) == 6
    for epoch in (2, 4):
        assert_same(batches[epoch : epoch + 2], batches[:2])
    assert not torch.equal(batches[0]["input_ids"], batches[1]["input_ids"])
