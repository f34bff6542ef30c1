"""A window with global tokens, which have projections of their own (Beltagy et al. 2020, section 3.1).

Shape letters: B batch, H heads, T tokens, G global tokens, C = d_model, D = C / H.
"""

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from src.nn.attention import SelfAttention
from src.nn.cache import KVCache
from src.nn.linear import Linear
from src.nn.masks import AttentionSpan, Mask, padding_mask


class GlobalSelfAttention(SelfAttention):
    """Self-attention whose global tokens, those of ``mask.global_tokens``, look at all tokens by other projections.

    All tokens look at the global ones too, by the projections that they look at their window with.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        kernel: str = "dense",
        span: AttentionSpan = AttentionSpan(),  # noqa: B008  frozen
    ) -> None:
        super().__init__(d_model, n_heads, dropout, bias, kernel, span)
        self.global_q = Linear(d_model, d_model, bias=bias)
        self.global_kv = Linear(d_model, 2 * d_model, bias=bias)

    def forward(self, x: Tensor, mask: Mask, cache: KVCache | None = None) -> Tensor:
        """Attend: (B, T, C) to the same. There is no cache: this is for encoders."""
        assert cache is None
        y = self._attend(x, mask)
        if mask.global_tokens is not None and mask.global_tokens.index.shape[1]:
            q, k, v = self._global_queries_keys_values(x, mask.global_tokens.index)
            visible = padding_mask(mask.attention_mask)
            found = scaled_dot_product_attention(q, k, v, attn_mask=visible, dropout_p=self._dropout_now)
            y = _with_global(y, found, mask.global_tokens.flags)
        return self._merge(y)

    def weights(self, x: Tensor, mask: Mask) -> Tensor:
        """As :meth:`SelfAttention.weights`, with those of the global tokens in their rows."""
        weights = super().weights(x, mask)
        if mask.global_tokens is not None and mask.global_tokens.index.shape[1]:
            q, k, _ = self._global_queries_keys_values(x, mask.global_tokens.index)
            found = self._weigh(q, k, padding_mask(mask.attention_mask))
            weights = _with_global(weights, found, mask.global_tokens.flags)
        return weights

    def _global_queries_keys_values(self, x: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        """Queries of the global tokens, (B, H, G, D), and what they look at, (B, H, T, D)."""
        (q,) = self._heads(self.global_q(x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))), 1)
        k, v = self._heads(self.global_kv(x), 2)
        return q, k, v


def _with_global(of_all: Tensor, of_global: Tensor, flags: Tensor) -> Tensor:
    """The rows of all tokens, (B, H, T, ...), with those of the global ones, (B, H, G, ...), in their places."""
    # which of the global tokens a token is; of the others it says nothing
    number = (flags.cumsum(1) - 1).clamp(min=0)[:, None, :, None]
    return of_global.gather(2, number.expand_as(of_all)).where(flags[:, None, :, None], of_all)
