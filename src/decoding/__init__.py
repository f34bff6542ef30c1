"""Turning a model's predictions into text."""

from src.decoding.sampling import filter_logits, generate, left_pad, stream

__all__ = ["filter_logits", "generate", "left_pad", "stream"]
