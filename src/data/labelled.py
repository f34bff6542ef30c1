"""Labelled texts from anywhere, as splits: HuggingFace `datasets` with columns of text and one of labels."""

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from src.data.malformed import DEFAULT, Malformed, Reading, text_objection
from src.data.sources import Parts, check_columns, files_of, fingerprint, load_rows, locate
from src.data.splits import check_fractions, cut_rows, split_parts
from src.errors import InputError

MOVIE_REVIEWS = "movie_reviews"
# 100 negative and 100 positive sentences of film reviews (Pang and Lee 2005), in fastText's format
REVIEWS_FILE = "test/test_data/pang_lee_polarity.cor"


@dataclass(frozen=True)
class LabelledColumns:
    """The rows of a split: texts, second texts where rows are pairs, and numbers of labels."""

    firsts: list[str]
    seconds: list[str] | None
    labels: list[int]


@dataclass(frozen=True)
class LabelledSource:
    """Where labelled rows come from and how they are split; see ``ClassificationDataModule`` for the arguments.

    The splits of the source are taken where it has them. What is missing is cut out of the training rows, always the
    same ones whatever the seed of a run.
    """

    source: str
    name: str | None
    text_column: str
    second_text_column: str | None
    label_column: str
    validation_fraction: float
    test_fraction: float
    reading: Reading = DEFAULT

    def __post_init__(self) -> None:
        check_fractions(self.validation_fraction, self.test_fraction)

    def fingerprint(self) -> str:
        """A hash of the arguments and of the files' sizes and times."""
        return fingerprint(asdict(self), [] if self.source == MOVIE_REVIEWS else files_of(self.source))

    def splits(self, cache_dir: Path) -> tuple[dict[str, LabelledColumns], list[str]]:
        """The rows of each split, and the names of the labels in the order of their numbers.

        Raises:
            InputError: a file is missing or unreadable, a column is missing, there is one label only, or one that the
                training rows do not have; under ``strict`` also a row without text or label.
        """
        splits = split_parts(self._load(cache_dir), self.source)
        found = cut_rows(self.source, splits, self.validation_fraction, self.test_fraction)
        names = self._label_names(found["train"])
        return {split: self._columns(split, rows, names) for split, rows in found.items()}, names

    def _load(self, cache_dir: Path) -> Parts:
        from datasets import Dataset

        if self.source == MOVIE_REVIEWS:
            return {
                "train": Dataset.from_dict(dict(zip((self.text_column, self.label_column), _reviews(), strict=True)))
            }
        columns = (*self._text_columns, self.label_column)
        return load_rows(locate(self.source), cache_dir, self.reading, columns, self._text_columns, name=self.name)

    def _label_names(self, train: Any) -> list[str]:
        self._check_columns(train)
        feature = train.features[self.label_column]
        names = (
            feature.names
            if hasattr(feature, "names")
            else sorted({str(label) for label in train[self.label_column] if not _is_missing(label)})
        )
        if len(names) < 2:
            raise InputError(f"column {self.label_column!r} of {self.source} has {len(names)} label: two are needed")
        return names

    def _check_columns(self, rows: Any) -> None:
        columns = [self.text_column, self.second_text_column, self.label_column]
        check_columns(self.source, rows, [column for column in columns if column])

    @property
    def _text_columns(self) -> tuple[str, ...]:
        return tuple(name for name in (self.text_column, self.second_text_column) if name)

    def _columns(self, split: str, rows: Any, names: list[str]) -> LabelledColumns:
        self._check_columns(rows)
        numbers = {name: i for i, name in enumerate(names)}
        coded = hasattr(rows.features[self.label_column], "names")
        malformed = Malformed(f"the {split} split of {self.source}", self.reading)
        kept: list[tuple[list[str], int]] = []
        for i, row in enumerate(rows, start=1):
            texts, label = [row[name] for name in self._text_columns], row[self.label_column]
            objection = text_objection([*texts, label if label is None else str(label)])
            if objection is not None:
                malformed.add(objection, f"row {i:,}")
                continue
            if not (coded or str(label) in numbers):
                where = f"row {i} of the {split} split of {self.source}"
                raise InputError(f"{where} has the label {label!r}: the training rows have {', '.join(names[:20])}")
            kept.append((texts, int(label) if coded else numbers[str(label)]))
        malformed.announce()
        if not kept:
            raise InputError(f"the {split} split of {self.source} has no row with a text and a label")
        columns = [list(column) for column in zip(*(texts for texts, _ in kept), strict=True)]
        return LabelledColumns(columns[0], columns[1] if len(columns) > 1 else None, [label for _, label in kept])


def _is_missing(label: Any) -> bool:
    return label is None or (isinstance(label, str) and not label.strip())


def _reviews() -> tuple[list[str], list[str]]:
    """The texts and the labels of the embedded film reviews."""
    spec = find_spec("gensim")
    if spec is None or spec.origin is None:
        raise InputError("the embedded reviews come with gensim, which is not installed: pip install gensim")
    lines = (Path(spec.origin).parent / REVIEWS_FILE).read_text(encoding="cp1252").removesuffix("\n").split("\n")
    labels, texts = zip(*(line.removeprefix("__label__").split(" ", 1) for line in lines), strict=True)
    return list(texts), list(labels)
