"""What is long to prepare shows how far it is and how long it will take, on a terminal."""

import io
import re
import sys

import pytest

from src.data import ClassificationDataModule, LMDataModule, MLMDataModule, TranslationDataModule
from tests.conftest import prepared


class Terminal(io.StringIO):
    """A stream that says that it is one."""

    def isatty(self) -> bool:
        return True


LINES = [f"Ein Satz, Nummer {i}. Und noch einer." for i in range(40)]
SMALL = {"tokenizer_vocab_size": 300}
MODULES = {
    "documents": (LMDataModule, SMALL),
    "masked words": (MLMDataModule, SMALL),
    "pairs": (TranslationDataModule, {**SMALL, "source_language": "text", "target_language": "label", "max_ratio": 40}),
    "rows": (ClassificationDataModule, {**SMALL, "tokenizer": "wordpiece"}),
}


@pytest.mark.parametrize("kind", MODULES)
def test_reading_for_the_tokenizer_and_tokenising_show_the_time_left(kind, tmp_path, monkeypatch):
    rows = ["text\tlabel", *(f"{line}\t{'ja' if i % 2 else 'nein'}" for i, line in enumerate(LINES))]
    (tmp_path / "rows.tsv").write_text("\n".join(rows))
    module, options = MODULES[kind]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    prepared(module(source=str(tmp_path / "rows.tsv"), cache_dir=str(tmp_path / "cache"), **options))
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", sys.stderr.getvalue())
    for what in ("for the tokenizer", "tokenising train"):
        assert re.search(rf"{what}[^\n]* 100% 0:00:\d\d", shown), shown  # how long it took, at the end
