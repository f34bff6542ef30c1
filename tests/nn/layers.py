"""Layers of attention with any span and kernel, of which a configuration makes but those that go together."""

from src.nn import KERNELS, AttentionSpan, BlockConfig, SelfAttention


def attention(d_model, n_heads, kernel="dense", span=None, kind=SelfAttention, **choices):
    layer = kind(BlockConfig(d_model=d_model, n_heads=n_heads, **choices))
    layer.kernel, layer.span = KERNELS[kernel], span or AttentionSpan()
    return layer
