"""GPT-2 (Radford et al. 2019): a causal language model.

Shape letters: B batch, T tokens, C = d_model, V = vocab_size.
"""

import math
from dataclasses import dataclass

from torch import Tensor, nn

from src.models.config import check
from src.nn import Block, KVCache, LearnedPositions, NormPlacement, causal_mask, position_ids


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT. The defaults are GPT-2's smallest, 124M parameters.

    Args:
        vocab_size: number of tokens; a run takes it from its tokenizer.
        max_seq_len: how many positions there are, and so the longest context.
        d_model: width of the residual stream.
        n_heads: attention heads; divides d_model.
        n_layers: blocks.
        d_ff: width of the feed-forward network; 4 x d_model if null.
        activation: of the feed-forward network.
        dropout: of the embeddings and of each sub-layer's output.
        attention_dropout: of the attention weights.
        norm: before each sub-layer (``pre``, GPT-2) or after it (``post``, the first GPT).
        bias: whether linear layers and norms have one.
        tie_embeddings: whether the output layer is the token embedding transposed.

    Raises:
        ValueError: for a shape that cannot work.
    """

    vocab_size: int = 50257
    max_seq_len: int = 1024
    d_model: int = 768
    n_heads: int = 12
    n_layers: int = 12
    d_ff: int | None = None
    activation: str = "gelu_tanh"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    norm: NormPlacement = "pre"
    bias: bool = True
    tie_embeddings: bool = True

    def __post_init__(self) -> None:
        check(self)


class GPT(nn.Module):
    """Token ids (B, T) to next-token logits (B, T, V)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embedding = LearnedPositions(config.max_seq_len, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(
                config.d_model,
                config.n_heads,
                config.d_ff or 4 * config.d_model,
                config.activation,
                config.dropout,
                config.attention_dropout,
                config.norm,
                bias=config.bias,
            )
            for _ in range(config.n_layers)
        )
        # the last block of a post-norm stack has normed its output already
        self.final_norm = nn.LayerNorm(config.d_model, bias=config.bias) if config.norm == "pre" else nn.Identity()
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self._init_weights()
        if config.tie_embeddings:
            self.head.weight = self.token_embedding.weight

    def _init_weights(self) -> None:
        """Normal with deviation 0.02, less by the depth for what is added to the residual stream (section 2.3)."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.n_layers) if residual else 0.02)

    def new_cache(self, max_len: int | None = None) -> list[KVCache]:
        """An empty cache for :meth:`forward`, one entry a block, for ``max_len`` tokens (the whole context if null)."""
        return [KVCache(max_len or self.config.max_seq_len) for _ in self.blocks]

    def hidden(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, cache: list[KVCache] | None = None
    ) -> Tensor:
        """What the output layer sees: (B, T, C). Arguments as in :meth:`forward`."""
        past = cache[0].length if cache else 0
        length = past + input_ids.shape[1]
        if length > self.config.max_seq_len:
            raise ValueError(f"{length} tokens are more than the {self.config.max_seq_len} positions of this model")
        positions = position_ids(input_ids, attention_mask, past)
        x = self.dropout(self.token_embedding(input_ids) + self.position_embedding(positions))
        whole = attention_mask is None and not past
        mask = None if whole else causal_mask(input_ids.shape[1], length, attention_mask).to(x.device)
        for i, block in enumerate(self.blocks):
            x = block(x, mask, is_causal=whole, cache=cache[i] if cache else None)
        return self.final_norm(x)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, cache: list[KVCache] | None = None
    ) -> Tensor:
        """Predict the token after each position.

        Args:
            input_ids: (B, T).
            attention_mask: (B, S), 1 at real tokens and 0 at padding, over the cached tokens too.
            cache: from :meth:`new_cache`; holds the keys and values of the tokens before these.

        Returns:
            Logits (B, T, V).

        Raises:
            ValueError: more tokens than positions.
        """
        return self.head(self.hidden(input_ids, attention_mask, cache))
