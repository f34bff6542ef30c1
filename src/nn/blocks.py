"""The transformer block: attention and feed-forward, each with a residual connection and a norm."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from src.nn.attention import CrossAttention, SelfAttention
from src.nn.cache import KVCache
from src.nn.config import BlockConfig
from src.nn.cpu import Dropout
from src.nn.feed_forward import FeedForward
from src.nn.masks import Mask
from src.nn.token_shift import TokenShift


def make_norm(config: BlockConfig) -> nn.Module:
    """A norm of the residual stream: layer norm (Ba et al. 2016), or ``x / rms(x) * w`` (Zhang and Sennrich 2019)."""
    if config.norm_type == "layer":
        return nn.LayerNorm(config.d_model, config.norm_eps, bias=config.bias)
    return nn.RMSNorm(config.d_model, config.norm_eps, elementwise_affine=config.norm_type == "rms")


class Block(nn.Module):
    """One layer of an encoder or decoder, (batch, seq, d_model) to the same.

    ``norm`` says where the norms are: ``post`` is ``norm(x + f(x))`` as in the original Transformer and BERT, ``pre``
    is ``x + f(norm(x))`` as in GPT-2 (Xiong et al. 2020 compare the two); in parallel, both sub-layers read the same
    norm. Dropout is on the output of each sub-layer, before it is added (Vaswani et al. 2017, section 5.4).

    Args:
        config: its shape and choices.
        layer: its number in the stack.
        cross_attention: whether there is a second attention, to an encoder's output.
        attention: makes the self-attention, from the configuration and the number.
    """

    def __init__(
        self,
        config: BlockConfig,
        layer: int = 0,
        cross_attention: bool = False,
        attention: Callable[[BlockConfig, int], nn.Module] = SelfAttention,
    ) -> None:
        super().__init__()
        self.config, self.norm = config, config.norm
        self.dropout = Dropout(config.dropout)
        self.attention = attention(config, layer)
        self.attention_norm = make_norm(config) if layer or config.first_norm else nn.Identity()
        if cross_attention:
            self.cross_attention = CrossAttention(config)
            self.cross_attention_norm = make_norm(config)
        d_ff = config.d_ff or 4 * config.d_model
        self.feed_forward = FeedForward(config.d_model, d_ff, config.activation, config.has_mlp_bias, config.gated)
        if not config.parallel:
            self.feed_forward_norm = make_norm(config)
        if config.token_shift:
            self.attention_shift = TokenShift(config.d_model, "attention")
            self.feed_forward_shift = TokenShift(config.d_model, "feed_forward")

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
        values: Tensor | None = None,
        token_values: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Masks, caches and ``token_values`` as in the attentions; ``memory`` (batch, source, d_model) for the second.

        With a value residual, ``values`` (batch, n_kv_heads, seq, head_dim) are those of the first block, which takes
        None, and each block returns them beside its output.
        """
        more: dict[str, Any] = {} if token_values is None else {"token_values": token_values}
        of_first = [] if values is None else [values]
        if self.config.value_residual:
            more["values"] = of_first

        def attention(y: Tensor) -> Tensor:
            return self.attention(self._shifted("attention", y, mask, cache), mask, cache, **more)

        def feed_forward(y: Tensor) -> Tensor:
            return self.feed_forward(self._shifted("feed_forward", y, mask, cache))

        x = self._forward(x, attention, feed_forward, memory, memory_mask, memory_cache)
        return (x, of_first[0].to(x.dtype).contiguous()) if self.config.value_residual else x

    def _shifted(self, name: str, y: Tensor, mask: Mask, cache: KVCache | None) -> Tensor:
        return getattr(self, f"{name}_shift")(y, mask, cache) if self.config.token_shift else y

    def _forward(
        self,
        x: Tensor,
        attention: Callable[[Tensor], Tensor],
        feed_forward: Callable[[Tensor], Tensor],
        memory: Tensor | None,
        memory_mask: Tensor | None,
        memory_cache: KVCache | None,
    ) -> Tensor:
        if self.config.parallel:  # Wang and Komatsuzaki 2021, GPT-J
            y = self.attention_norm(x)
            return x + self.dropout(attention(y)) + self.dropout(feed_forward(y))
        x = self._residual(x, self.attention_norm, attention)
        if memory is not None:
            x = self._residual(
                x,
                self.cross_attention_norm,
                lambda y: self.cross_attention(y, memory, memory_mask, memory_cache),
            )
        return self._residual(x, self.feed_forward_norm, feed_forward)


def init_outputs(network: nn.Module) -> None:
    """Zero what the blocks of a network add to the residual stream, where their configuration says ``zero_init``."""
    for block in network.modules():
        if isinstance(block, Block) and block.config.zero_init:
            for name, parameter in block.named_parameters():
                if name.endswith(("out.weight", "down.weight")):
                    nn.init.zeros_(parameter)
