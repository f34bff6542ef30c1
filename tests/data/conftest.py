"""The embedded corpus, prepared once."""

import pytest

from src.data import LMDataModule


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> LMDataModule:
    """The data module as it comes, without a source, with a small vocabulary."""
    module = LMDataModule(tokenizer_vocab_size=2000, cache_dir=str(tmp_path_factory.mktemp("embedded")))
    module.prepare_data()
    return module
