"""Queries for an evaluation out of any documents, without labels: the inverse cloze task (Lee et al. 2019)."""

import numpy as np

from src.data.sentences import split_sentences
from src.extras.retrieval.documents import Document
from src.extras.retrieval.evaluation import Query

MIN_WORDS = 6  # of a query: a heading asks for nothing


def make_queries(documents: list[Document], every: int, seed: int = 0) -> tuple[list[Document], list[Query]]:
    """Take one sentence out of each run of ``every`` sentences.

    Returns:
        The documents without those sentences, and the sentences as queries. What answers one is the passage that it was
        taken out of: the one with the character before the gap, and the one with the character after it.
    """
    rng = np.random.default_rng(seed)
    remaining, queries = [], []
    for document in documents:
        sentences = split_sentences(document.text)
        taken = set()
        for start in range(0, len(sentences), every):
            fit = [
                i for i in range(start, min(start + every, len(sentences))) if len(sentences[i].split()) >= MIN_WORDS
            ]
            if len(fit) > 1:  # what is left of the run must say something, too
                taken.add(int(rng.choice(fit)))
        text = ""
        for i, sentence in enumerate(sentences):
            if i in taken:
                place = len(text)
                queries.append(Query(sentence, document.source, max(0, place - 2), place + 1))  # over the line break
            else:
                text += sentence + "\n"
        remaining.append(Document(document.source, text))
    return remaining, queries
