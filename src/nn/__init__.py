"""Layers that every architecture shares. Plain torch."""

from src.nn.activations import ACTIVATIONS, activation
from src.nn.attention import CrossAttention, SelfAttention, causal_mask, padding_mask
from src.nn.blocks import Block, NormPlacement
from src.nn.cache import KVCache
from src.nn.cross_entropy import summed_cross_entropy
from src.nn.feed_forward import FeedForward
from src.nn.positions import LearnedPositions, SinusoidalPositions, position_ids

__all__ = [
    "ACTIVATIONS",
    "Block",
    "CrossAttention",
    "FeedForward",
    "KVCache",
    "LearnedPositions",
    "NormPlacement",
    "SelfAttention",
    "SinusoidalPositions",
    "activation",
    "causal_mask",
    "padding_mask",
    "position_ids",
    "summed_cross_entropy",
]
