"""configs/bert.yaml on held-out articles of the embedded corpus, against what is reached without a network."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.data import MLMDataModule
from src.data.store import IGNORED
from tests.conftest import prepared

ROOT = Path(__file__).parents[2]


def unigram_perplexity(module: MLMDataModule) -> float:
    """Of the validation split's masked words, by their frequency in the training split plus one."""
    counts = np.bincount(module.dataset("train").pairs.data.tokens, minlength=module.vocab_size) + 1
    log_probabilities = np.log(counts / counts.sum())
    labels = np.concatenate([batch["labels"].flatten().numpy() for batch in module.val_dataloader()])
    return float(np.exp(-log_probabilities[labels[labels != IGNORED]].mean()))


@pytest.mark.slow
def test_both_tasks_are_learnt_on_a_laptop(run, tmp_path):
    cache = tmp_path / "cache"
    arguments = ("--data.init_args.cache_dir", cache, "--trainer.default_root_dir", tmp_path / "logs")
    status, out, err = run("fit", "--config", ROOT / "configs/bert.yaml", *arguments)
    assert status == 0, err
    figures = pd.read_csv(tmp_path / "logs/bert/version_0/metrics.csv")
    module = prepared(MLMDataModule(validation_fraction=0.1, tokenizer_vocab_size=4096, cache_dir=str(cache)))
    baseline, pairs = unigram_perplexity(module), len(module.dataset("validation"))
    perplexity = figures["val/mlm_perplexity"].dropna().iloc[-1]
    accuracy = figures["val/nsp_accuracy"].dropna().iloc[-1]
    print(out, f"unigram perplexity {baseline:.1f}, {pairs} validation pairs", sep="\n")
    assert perplexity < 0.75 * baseline
    assert accuracy > 0.5 + 5 * 0.5 / np.sqrt(pairs)
