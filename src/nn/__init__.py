"""Layers that every architecture shares. Plain torch."""

from src.nn.attention import CrossAttention, GlobalSelfAttention, SelfAttention, ValueEmbedding
from src.nn.blocks import Block, init_outputs, make_norm
from src.nn.cache import KVCache
from src.nn.config import BlockConfig, NormPlacement
from src.nn.cpu import Dropout
from src.nn.cross_entropy import IGNORED, Head, summed_cross_entropy
from src.nn.feed_forward import ACTIVATIONS, GATED, FeedForward, activation
from src.nn.kernels import KERNELS
from src.nn.masks import AttentionSpan, GlobalTokens, Mask, Packing, padding_mask
from src.nn.positions import (
    POSITIONS,
    LearnedPositions,
    Positions,
    Rope,
    SinusoidalPositions,
    alibi_slopes,
    position_ids,
)
from src.nn.token_shards import TokenShards
from src.nn.token_shift import TokenShift

__all__ = [
    "ACTIVATIONS",
    "GATED",
    "IGNORED",
    "KERNELS",
    "POSITIONS",
    "AttentionSpan",
    "Block",
    "BlockConfig",
    "CrossAttention",
    "Dropout",
    "FeedForward",
    "GlobalSelfAttention",
    "GlobalTokens",
    "Head",
    "KVCache",
    "LearnedPositions",
    "Mask",
    "NormPlacement",
    "Packing",
    "Positions",
    "Rope",
    "SelfAttention",
    "SinusoidalPositions",
    "TokenShards",
    "TokenShift",
    "ValueEmbedding",
    "activation",
    "alibi_slopes",
    "init_outputs",
    "make_norm",
    "padding_mask",
    "position_ids",
    "summed_cross_entropy",
]
