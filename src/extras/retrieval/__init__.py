"""Retrieval: an index of passages, search, reranking, answers, and how good they are."""

VERBS = {"rag": ("src.extras.retrieval.cli:rag", "index documents, search them, rerank, and answer from them")}
