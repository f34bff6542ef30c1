"""Retrieval: an index of passages, search, reranking, answers, and how good they are."""
