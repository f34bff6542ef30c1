"""A window with global tokens, which have projections of their own (Beltagy et al. 2020, section 3.1).

Shape letters: B batch, H heads, T tokens, G global tokens, C = d_model, D = C / H.
"""

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from src.nn.attention import SelfAttention
from src.nn.cache import KVCache
from src.nn.masks import Mask, Reach, padding_mask


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
        reach: Reach = Reach(),  # noqa: B008  frozen
    ) -> None:
        super().__init__(d_model, n_heads, dropout, bias, kernel, reach)
        self.global_q = nn.Linear(d_model, d_model, bias=bias)
        self.global_kv = nn.Linear(d_model, 2 * d_model, bias=bias)

    def forward(self, x: Tensor, mask: Mask, cache: KVCache | None = None) -> Tensor:
        """Attend: (B, T, C) to the same. There is no cache: this is for encoders."""
        y = self._attend(x, mask)
        if mask.global_tokens is not None and mask.global_tokens.index.shape[1]:
            flags, index = mask.global_tokens.flags, mask.global_tokens.index
            found = self._attend_globally(x, mask, index)
            # which of the global tokens a token is; of the others it says nothing
            number = (flags.cumsum(1) - 1).clamp(min=0)[:, None, :, None]
            y = found.gather(2, number.expand_as(y)).where(flags[:, None, :, None], y)
        return self._merge(y)

    def _attend_globally(self, x: Tensor, mask: Mask, index: Tensor) -> Tensor:
        """What the global tokens see, (B, H, G, D)."""
        (q,) = self._heads(self.global_q(x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))), 1)
        k, v = self._heads(self.global_kv(x), 2)
        visible = padding_mask(mask.attention_mask)
        return scaled_dot_product_attention(q, k, v, attn_mask=visible, dropout_p=self._dropout_now)
