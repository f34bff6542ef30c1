"""Turning a model's predictions into text."""

from src.decoding.beam import Hypothesis, beam_search, greedy_search, wu_penalty
from src.decoding.sampling import filter_logits, generate, left_pad, stream

__all__ = [
    "Hypothesis",
    "beam_search",
    "filter_logits",
    "generate",
    "greedy_search",
    "left_pad",
    "stream",
    "wu_penalty",
]
