"""Data for retrievers and rerankers: queries with passages that answer them, out of any text or of labelled rows."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from src.coverage import MeasuredTokenizer
from src.data.corpora import EMBEDDED, Pieces
from src.data.datamodule import DocumentDataModule
from src.data.malformed import Malformed
from src.data.progress import with_progress
from src.data.sentences import read_sentences
from src.data.store import open_array
from src.data.texts import Piece
from src.errors import InputError
from src.extras.retrieval.data.examples import (
    Examples,
    InverseCloze,
    LabelledRanking,
    RankingSource,
    write_cloze,
    write_ranking,
)
from src.extras.retrieval.data.groups import HardNegatives, PairGroups, RankingGroups, write_bm25
from src.tokenization import bert_ids, bert_tokens, vocabulary_size


class RankingDataModule(DocumentDataModule):
    """Groups of a query, the passage that answers it, and passages that do not.

    Without labels, out of documents: the inverse cloze task. A passage is a run of sentences of one document, and
    each epoch another of its sentences is the query. With ``query_column``, out of labelled rows.

    Args:
        source: ``wikipedia`` (106 articles that install with the project), files, a folder, or a hub dataset: see
            :class:`src.data.corpora.Corpus`, for this and the next ones. Of labelled rows a .csv, .tsv, .json, .jsonl
            or .parquet file, or a hub dataset.
        query_column: the column of the queries, where the source has labelled rows; None for documents.
        positive_column: the column of the passage that answers the query.
        negatives_column: the column of passages that do not, a list, which may be missing.
        tokenizer: ``wordpiece``, or the path of a tokenizer.json: that of the pretrained network.
        query_len: tokens of a query at most, the special ones among them.
        seq_len: tokens of what the network reads at most: of a passage, or of a query and a passage together.
        passage_len: tokens of a passage made of sentences.
        keep: fraction of the queries that stay in their passage (0.1 in Lee et al. 2019).
        negatives: passages a query beside the one that answers it: those of its row, then the best of BM25.
        negatives_depth: how many of BM25's best the negatives are drawn from.
    """

    groups: ClassVar[type[RankingGroups]]

    def __init__(
        self,
        *,
        source: str = EMBEDDED,
        query_column: str | None = None,
        positive_column: str = "positive",
        negatives_column: str = "negatives",
        tokenizer: str = "wordpiece",
        query_len: int = 64,
        seq_len: int = 128,
        passage_len: int = 128,
        keep: float = 0.1,
        negatives: int = 0,
        negatives_depth: int = 30,
        **kwargs: Any,
    ) -> None:
        super().__init__(source=source, revision=None, validation_source=None, tokenizer=tokenizer, **kwargs)
        for option, value, least in (
            ("query_len", query_len, 3),
            ("seq_len", seq_len, 5),
            ("passage_len", passage_len, 2),
            ("negatives", negatives, 0),
            ("negatives_depth", negatives_depth, 1),
        ):
            if value < least:
                raise InputError(f"{option} is {value}: it must be at least {least}")
        if not 0 <= keep <= 1:
            raise InputError(f"keep is {keep}: it must be between 0 and 1")
        self.labelled: RankingSource | None = None
        if query_column is not None:
            texts, fractions = (query_column, positive_column), (self.validation_fraction, self.test_fraction)
            self.labelled = RankingSource(source, self.corpus.name, texts, *fractions, self.reading, negatives_column)
        self.query_len, self.seq_len, self.passage_len, self.keep = query_len, seq_len, passage_len, keep
        self.negatives, self.negatives_depth = negatives, negatives_depth

    @property
    def special_tokens(self) -> dict[str, str]:
        return bert_tokens(self.tokenizer)

    # ---- preparing

    def cache_key(self) -> dict[str, Any]:
        return {
            "source": (self.labelled or self.corpus).fingerprint(),
            "tokenizer": self.tokenizer_key(),
            "passage_len": self.passage_len,
            "bm25": self.negatives > 0,
        }

    def write_cache(self, folder: Path) -> dict[str, dict[str, int]]:
        splits = (self.labelled or self.corpus).splits(self.cache_dir)
        per_row = 1 if self.labelled is None else 2
        tokenizer = self.save_tokenizer(folder, self._pieces(splits["train"]), per_row * len(splits["train"]))
        bert_tokens(tokenizer)
        infos = {}
        for split, rows in splits.items():
            infos[split] = self.once(folder, split, tokenizer, partial(self._write_split, folder, split, rows))
        return infos

    def _write_split(
        self, folder: Path, split: str, rows: Any, measured: MeasuredTokenizer, malformed: Malformed
    ) -> dict[str, int]:
        if self.labelled is None:
            pieces = with_progress(Pieces(rows, malformed), f"tokenising {split} documents", len(rows))
            write_cloze(measured, pieces, folder, split, self.passage_len)
        else:
            labelled = with_progress(self.labelled.labelled(rows, malformed), f"tokenising {split} rows", len(rows))
            write_ranking(measured, labelled, folder, split)
        examples = self._examples(folder, split)
        counts = {"queries": len(examples), "passages": examples.n_passages, "tokens": examples.n_tokens}
        if self.negatives:
            self._check_passages(split, counts)
            tokens = map(examples.passage, range(examples.n_passages))
            write_bm25(tokens, vocabulary_size(measured.tokenizer), folder, split)
        return counts

    def _pieces(self, rows: Any) -> Iterable[Piece]:
        """Give what a tokenizer is trained on."""
        if self.labelled is None:
            return Pieces(rows)
        return (Piece(text) for query, own, others in self.labelled.labelled(rows) for text in (query, own, *others))

    # ---- reading

    def _examples(self, folder: Path, split: str) -> Examples:
        if self.labelled is not None:
            return LabelledRanking(folder, split)
        return InverseCloze(read_sentences(folder, split), open_array(folder, f"{split}.passages"), self.keep)

    def _check_passages(self, split: str, info: dict[str, int]) -> None:
        if info["passages"] < 2:
            raise InputError(
                f"the {split} split of {self.label} has fewer than two passages: give more or longer "
                "documents, or a document_separator"
            )

    def open_split(self, split: str) -> RankingGroups:
        self._check_passages(split, self.info[split])
        hard = HardNegatives(self.folder, split, self.negatives_depth) if self.negatives else None
        examples, seed = self._examples(self.folder, split), self.seed if split == "train" else None
        special = bert_ids(self.tokenizer)
        return self.groups(examples, hard, self.negatives, special, self.query_len, self.seq_len, seed)


class RetrieverDataModule(RankingDataModule):
    """Queries and passages apart, for two towers; the other passages of a batch are negatives as well."""

    groups = RankingGroups


class RerankerDataModule(RankingDataModule):
    """Each query joined with each of its passages, for one network that reads both."""

    groups = PairGroups

    def setup(self, stage: str) -> None:
        if not self.negatives:
            raise InputError("negatives is 0: a reranker learns to tell a passage from others, give it at least 1")
        super().setup(stage)
