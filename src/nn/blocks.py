"""The transformer block: attention and feed-forward, each with a residual connection and a layer norm."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from src.nn.attention import CrossAttention, SelfAttention
from src.nn.cache import KVCache
from src.nn.cpu import Dropout
from src.nn.feed_forward import FeedForward
from src.nn.masks import Mask

NormPlacement = Literal["pre", "post"]


class Block(nn.Module):
    """One layer of an encoder or decoder, (batch, seq, d_model) to the same.

    Args:
        d_model: width of the residual stream.
        n_heads: number of attention heads.
        d_ff: width of the feed-forward network.
        activation: name in :data:`src.nn.feed_forward.ACTIVATIONS`.
        dropout: on the output of each sub-layer, before it is added (Vaswani et al. 2017, section 5.4).
        attention_dropout: on the attention weights.
        norm: ``post`` is ``norm(x + f(x))`` as in the original Transformer and BERT, ``pre`` is ``x + f(norm(x))`` as
            in GPT-2 (Xiong et al. 2020 compare the two).
        cross_attention: whether there is a second attention, to an encoder's output.
        norm_eps: added to the variance in each layer norm.
        bias: whether linear layers and norms have one.
        attention: makes the self-attention, from its first four arguments.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        d_ff: int,
        activation: str,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        norm: NormPlacement = "pre",
        cross_attention: bool = False,
        norm_eps: float = 1e-5,
        bias: bool = True,
        attention: Callable[[int, int, float, bool], SelfAttention] = SelfAttention,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.dropout = Dropout(dropout)
        self.attention = attention(d_model, n_heads, attention_dropout, bias)
        self.attention_norm = nn.LayerNorm(d_model, eps=norm_eps, bias=bias)
        if cross_attention:
            self.cross_attention = CrossAttention(d_model, n_heads, attention_dropout, bias)
            self.cross_attention_norm = nn.LayerNorm(d_model, eps=norm_eps, bias=bias)
        self.feed_forward = FeedForward(d_model, d_ff, activation, bias)
        self.feed_forward_norm = nn.LayerNorm(d_model, eps=norm_eps, bias=bias)

    def _residual(self, x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        if self.norm == "pre":
            return x + self.dropout(sublayer(norm(x)))
        return norm(x + self.dropout(sublayer(x)))

    def forward(
        self,
        x: Tensor,
        mask: Mask,
        cache: KVCache | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        memory_cache: KVCache | None = None,
    ) -> Tensor:
        """Masks and caches as in the two attentions; ``memory`` (batch, source, d_model) for cross-attention."""
        x = self._residual(x, self.attention_norm, lambda y: self.attention(y, mask, cache))
        if memory is not None:
            x = self._residual(
                x,
                self.cross_attention_norm,
                lambda y: self.cross_attention(y, memory, memory_mask, memory_cache),
            )
        return self._residual(x, self.feed_forward_norm, self.feed_forward)
