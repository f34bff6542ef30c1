"""Turning a model's predictions into text."""

from src.decoding.beam import Hypothesis, beam_search, greedy_search, wu_penalty
from src.decoding.sampling import filter_logits, generate, left_pad, stream
from src.decoding.text import TextStream, Writer, decode_continuation, encode_prompt, stream_text
from src.decoding.translator import Translator

__all__ = [
    "Hypothesis",
    "TextStream",
    "Translator",
    "Writer",
    "beam_search",
    "decode_continuation",
    "encode_prompt",
    "filter_logits",
    "generate",
    "greedy_search",
    "left_pad",
    "stream",
    "stream_text",
    "wu_penalty",
]
