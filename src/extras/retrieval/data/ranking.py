"""Data for retrievers and rerankers: queries with passages that answer them, out of any text or of labelled rows."""

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from src.atomic import checksums, damaged
from src.coverage import MeasuredTokenizer
from src.data.corpora import EMBEDDED, Corpus, documents
from src.data.datamodule import TextDataModule
from src.data.language_modeling import TOKENIZER_DOCUMENTS
from src.data.malformed import Malformed, Reading
from src.data.packing import PackedInfo, read_info, write_info
from src.data.progress import announce
from src.data.sentence_store import read_sentences
from src.errors import InputError
from src.extras.retrieval.data.groups import Examples, PairGroups, RankingGroups
from src.extras.retrieval.data.hard_negatives import HardNegatives, write_bm25
from src.extras.retrieval.data.inverse_cloze import InverseCloze, write_cloze
from src.extras.retrieval.data.labelled_ranking import LabelledRanking, RankingSource, write_ranking
from src.tokenization import bert_ids, bert_tokens, make_tokenizer, tokenizer_text, vocabulary_size

FORMAT = 1  # of the cache; counted up when what is written changes


class RankingDataModule(TextDataModule):
    """Groups of a query, the passage that answers it, and passages that do not.

    Without labels, out of documents: the inverse cloze task. A passage is a run of sentences of one document, and
    each epoch another of its sentences is the query. With ``query_column``, out of labelled rows.

    Args:
        source: ``wikipedia`` (106 articles that install with the project), files, a folder, or a hub dataset: see
            :class:`src.data.corpora.Corpus`, for this and the next ones. Of labelled rows a .csv, .tsv, .json, .jsonl
            or .parquet file, or a hub dataset.
        name: configuration of a hub dataset.
        text_column: the column that holds the text of documents.
        document_separator: what separates the documents of a text file; none for one document a file.
        query_column: the column of the queries, where the source has labelled rows; null for documents.
        positive_column: the column of the passage that answers the query.
        negatives_column: the column of passages that do not, a list, which may be missing.
        validation_fraction: share of the documents, or rows, for validation, where the source has no such split.
        test_fraction: the same for testing; 0 for no test split.
        max_documents: read no more than this many.
        strict: refuse malformed rows (not UTF-8, no JSON, of a wrong type, null or empty) instead of leaving them out.
        max_malformed: share of the rows of a file that may be left out as malformed; more are refused.
        delimiter: between the fields of a table; by its ending and its header if null.
        encoding: of texts, tables and JSON, such as ``cp1252``; UTF-8 if null, or what a table is without doubt.
        tokenizer: ``wordpiece``, or the path of a tokenizer.json: that of the pretrained network.
        tokenizer_vocab_size: of a trained ``wordpiece``.
        tokenizer_cased: whether a trained ``wordpiece`` keeps case and accents; if null, it does unless 99.5% of the
            letters are ASCII, as those of English are.
        query_len: tokens of a query at most, the special ones among them.
        seq_len: tokens of what the network reads at most: of a passage, or of a query and a passage together.
        passage_len: tokens of a passage made of sentences.
        keep: share of the queries that stay in their passage (0.1 in Lee et al. 2019).
        negatives: passages a query beside the one that answers it: those of its row, then the best of BM25.
        negatives_depth: how many of BM25's best the negatives are drawn from.
        batch_size: queries a batch, on each rank.
        eval_batch_size: the same for validation and test; ``batch_size`` if null.
        num_workers: processes that load training batches; 0 loads them in the main process.
        seed: of the order of the queries, and of what is drawn for them; the run's seed.
        cache_dir: where prepared data lie.

    Raises:
        InputError: a number that cannot be, or a source that cannot be read, before any training.
    """

    groups: ClassVar[type[RankingGroups]]
    descriptions = ("tokenizer.json", "files.json")

    def __init__(
        self,
        source: str = EMBEDDED,
        name: str | None = None,
        text_column: str = "text",
        document_separator: str | None = None,
        query_column: str | None = None,
        positive_column: str = "positive",
        negatives_column: str = "negatives",
        validation_fraction: float = 0.05,
        test_fraction: float = 0.05,
        max_documents: int | None = None,
        strict: bool = False,
        max_malformed: float = 0.05,
        delimiter: str | None = None,
        encoding: str | None = None,
        tokenizer: str = "wordpiece",
        tokenizer_vocab_size: int = 8192,
        tokenizer_cased: bool | None = None,
        query_len: int = 64,
        seq_len: int = 128,
        passage_len: int = 128,
        keep: float = 0.1,
        negatives: int = 0,
        negatives_depth: int = 30,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str = ".cache",
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed, cache_dir)
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
        reading = Reading(strict, max_malformed, delimiter, encoding)
        self.source: Corpus | RankingSource
        if query_column is None:
            self.source = Corpus(
                source,
                name,
                None,
                text_column,
                document_separator,
                validation_fraction=validation_fraction,
                test_fraction=test_fraction,
                max_documents=max_documents,
                reading=reading,
            )
        else:
            columns = (query_column, positive_column, negatives_column)
            self.source = RankingSource(source, name, *columns, validation_fraction, test_fraction, reading)
        self.tokenizer_kind, self.tokenizer_vocab_size = tokenizer, tokenizer_vocab_size
        self.tokenizer_cased = tokenizer_cased
        self.query_len, self.seq_len, self.passage_len, self.keep = query_len, seq_len, passage_len, keep
        self.negatives, self.negatives_depth = negatives, negatives_depth
        self._datasets: dict[str, RankingGroups] = {}

    @property
    def special_tokens(self) -> dict[str, str]:
        return bert_tokens(self.tokenizer)

    # ---- preparing

    def cache_key(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "source": self.source.fingerprint(),
            "tokenizer": [
                self.tokenizer_kind,
                tokenizer_text(self.tokenizer_kind),
                self.tokenizer_vocab_size,
                self.tokenizer_cased,
            ],
            "passage_len": self.passage_len,
            "bm25": self.negatives > 0,
        }

    def write_cache(self, folder: Path) -> None:
        announce(f"preparing {self.source.source} in {self.cache_dir} (once)")
        splits = self.source.splits(self.cache_dir)
        texts = islice(self._texts(splits["train"]), TOKENIZER_DOCUMENTS)
        tokenizer = make_tokenizer(self.tokenizer_kind, self.tokenizer_vocab_size, texts, self.tokenizer_cased)
        bert_tokens(tokenizer)
        tokenizer.save(str(folder / "tokenizer.json"))
        infos: dict[str, PackedInfo] = {}
        for split, rows in splits.items():
            malformed = Malformed(f"the {split} split", self.source.reading)
            measured = MeasuredTokenizer(tokenizer, f"the {split} split of {self.source.source}")
            if isinstance(self.source, Corpus):
                infos |= write_cloze(measured, documents(rows, malformed), folder, split, self.passage_len)
            else:
                write_ranking(measured, self.source.texts(rows, malformed), folder, split)
            malformed.announce()
            self.check_coverage(measured, self.tokenizer_kind)
        write_info(folder / "info.json", infos)
        for split in splits if self.negatives else ():
            examples = self._examples(folder, split)
            self._check_passages(split, examples)
            passages = (examples.whole(i) for i in range(examples.n_passages))
            write_bm25(passages, vocabulary_size(tokenizer), folder, split)
        (folder / "files.json").write_text(json.dumps(checksums(folder.iterdir())), encoding="utf-8")

    def _texts(self, rows: Any) -> Iterable[str]:
        """What a tokenizer is trained on."""
        if isinstance(self.source, Corpus):
            return documents(rows)
        return (text for query, own, others in self.source.texts(rows) for text in (query, own, *others))

    def cache_is_complete(self, folder: Path) -> bool:
        described = folder / "files.json"
        try:
            return damaged(folder, json.loads(described.read_bytes()), described.stat().st_mtime_ns) is None
        except (OSError, ValueError):  # whatever is wrong with it, it is made again
            return False

    # ---- reading

    def setup(self, stage: str) -> None:
        """Refuse splits that are missing or give no queries before anything is trained."""
        for split in {"fit": ("train", "validation"), "validate": ("validation",)}.get(stage, ("test",)):
            self.dataset(split)

    def _examples(self, folder: Path, split: str) -> Examples:
        if isinstance(self.source, RankingSource):
            return LabelledRanking(folder / f"{split}.npz")
        data = read_sentences(folder, split, read_info(folder / "info.json"))
        return InverseCloze(data, np.load(folder / f"{split}.passages.npy", mmap_mode="r"), self.keep)

    def _check_passages(self, split: str, examples: Examples) -> None:
        if examples.n_passages < 2:
            raise InputError(
                f"the {split} split of {self.source.source} has fewer than two passages: give more or longer "
                "documents, or a document_separator"
            )

    def dataset(self, split: str) -> RankingGroups:
        if split not in self._datasets:
            if not any(self.folder.glob(f"{split}.*")):
                raise InputError(f"{self.source.source} has no {split} split: set {split}_fraction above 0")
            examples = self._examples(self.folder, split)
            self._check_passages(split, examples)
            hard = HardNegatives(self.folder, split, self.negatives_depth) if self.negatives else None
            seed = self.seed if split == "train" else None
            lengths = self.query_len, self.seq_len
            self._datasets[split] = self.groups(
                examples, hard, self.negatives, bert_ids(self.tokenizer), *lengths, seed
            )
        return self._datasets[split]

    def summary(self) -> dict[str, dict[str, int]]:
        """Counts of each split, for people; the tokens are those of the passages."""
        counts = {}
        for split in ("train", "validation", "test"):
            if any(self.folder.glob(f"{split}.*")):
                examples = self._examples(self.folder, split)
                passages = {"passages": examples.n_passages, "tokens": examples.n_tokens}
                counts[split] = {"queries": len(examples), **passages}
        return counts


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
