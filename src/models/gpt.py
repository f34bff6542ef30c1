"""GPT-2 (Radford et al. 2019): a causal language model.

Shape letters: B batch, T tokens, C = d_model, V = vocab_size.
"""

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from src.models.network import Network, Step, stack
from src.nn import (
    IGNORED,
    POSITIONS,
    Block,
    BlockConfig,
    Dropout,
    Head,
    KVCache,
    Mask,
    SelfAttention,
    TokenShards,
    TokenShift,
    ValueEmbedding,
    init_outputs,
    make_norm,
    position_ids,
)


@dataclass(frozen=True)
class GPTConfig(BlockConfig):
    """The shape of a GPT. The defaults are GPT-2's smallest, 124M parameters; `docs/modern.md` has today's choices.

    Args:
        vocab_size: number of tokens; a run takes it from its tokenizer.
        max_seq_len: how many positions there are, and so the longest context.
        n_layers: blocks.
        tie_embeddings: whether the output layer is the token embedding transposed.
        logit_softcap: what no logit exceeds (Gemma 2, section 2); None for no bound.
        init: deviation of the initial matrices and embeddings: 0.02 (``normal``, GPT-2) or d_model^-0.5 (``width``).
        mup_width: the width for which learning rate and initialisation were chosen, and from which those of this one
            follow (muP: Yang et al. 2022, table 8), for heads of a fixed width; None for as they are.
        n_value_embeddings: tables of a vector for each token, of which the i-th is added to the values of the i-th
            block, and of the i-th of the last as many (Jordan et al. 2024, modded-nanogpt).
        n_future_tokens: how many tokens after each position are predicted in training: the next one, and each further
            one by a block of its own before the same output layer (Gloeckle et al. 2024, section 2).
    """

    vocab_size: int = 50257
    max_seq_len: int = 1024
    _: KW_ONLY
    n_layers: int = 12
    tie_embeddings: bool = True
    logit_softcap: float | None = None
    init: Literal["normal", "width"] = "normal"
    mup_width: int | None = None
    n_value_embeddings: int = 0
    n_future_tokens: int = 1
    d_model: int = 768
    n_heads: int = 12
    activation: str = "gelu_tanh"
    dropout: float = 0.1
    attention_dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init not in ("normal", "width"):
            raise ValueError(f"init is {self.init!r}: choose 'normal' or 'width'")
        if not 0 <= 2 * self.n_value_embeddings <= self.n_layers:
            raise ValueError(
                f"n_value_embeddings is {self.n_value_embeddings}: each serves two of the {self.n_layers} blocks"
            )

    @property
    def context(self) -> int | None:
        """The longest context; None where any goes: no position is looked up, and no distance exceeds a window."""
        windows = [self.window_of(layer) for layer in range(self.n_layers)]
        return self.max_seq_len if POSITIONS[self.positions].table or None in windows else None


class GPT(Network):
    """Token ids (B, T) to next-token logits (B, T, V)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config, self.tokens = config, TokenShards()
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        table, attention = POSITIONS[config.positions]
        self.position_embedding = table(config.max_seq_len, config.d_model) if table else None
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(config, i, attention=attention or SelfAttention) for i in range(config.n_layers)
        )
        values = (config.vocab_size, (config.n_kv_heads or config.n_heads) * config.head_width)
        self.value_embeddings = nn.ModuleList(ValueEmbedding(*values) for _ in range(config.n_value_embeddings))
        # read after the last block, as deep in the network as it
        shape, last = replace(config, value_residual=False), config.n_layers - 1
        self.future_blocks = nn.ModuleList(
            Block(shape, last, attention=attention or SelfAttention) for _ in range(config.n_future_tokens - 1)
        )
        # the last block of a post-norm stack has normed its output already
        self.final_norm = make_norm(config) if config.norm == "pre" else nn.Identity()
        self.matrix_lr_scale = (config.mup_width or config.d_model) / config.d_model  # as well as the logits'
        self.head = Head(config.d_model, config.vocab_size, False, config.logit_softcap, self.matrix_lr_scale)
        self._init_weights()
        if config.tie_embeddings:
            self.head.weight = self.token_embedding.weight

    def _init_weights(self) -> None:
        """Normal with deviation 0.02, less by the depth for what is added to the residual stream (section 2.3)."""
        config = self.config
        deviation = 0.02 if config.init == "normal" else (config.mup_width or config.d_model) ** -0.5
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                std = deviation * math.sqrt(self.matrix_lr_scale) if "blocks" in name else deviation
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=std / math.sqrt(2 * config.n_layers) if residual else std)
        init_outputs(self)

    def shard_tokens(self, tokens: TokenShards) -> None:
        """Compute with this rank's part of each row's tokens; arguments and output are those of whole rows."""
        self.tokens = tokens
        for module in self.modules():
            if isinstance(module, SelfAttention | TokenShift):
                module.shard_tokens(tokens)

    def new_cache(self, max_len: int | None = None) -> list[KVCache]:
        """An empty cache for :meth:`steps`, one entry a block, for ``max_len`` tokens (the whole context if None).

        With a window a block keeps no more than that: the cache of any number of tokens has one size.
        """
        spans = [self.config.span(layer).tokens for layer in range(self.config.n_layers)]
        return [KVCache(max_len or self.config.context, tokens) for tokens in spans]

    def embed(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past: int = 0,
        documents: Tensor | None = None,
    ) -> Tensor:
        """Compute what the first block sees: (B, T, C), or this rank's part of it."""
        length, context = past + input_ids.shape[1], self.config.context
        if context is not None and length > context:
            raise ValueError(f"{length} tokens are more than the {context} positions of this model")
        x = self.token_embedding(self.tokens.part(input_ids))
        if self.config.positions == "sinusoidal":
            x = x * math.sqrt(self.config.d_model)  # Vaswani et al. 2017, 3.4: else the positions drown the tokens
        if self.position_embedding is not None:
            positions = position_ids(input_ids, attention_mask, past, documents)
            x = x + self.position_embedding(self.tokens.part(positions))
        return self.dropout(x)

    def steps(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        cache: list[KVCache] | None = None,
        documents: Tensor | None = None,
        labels: Tensor | None = None,
        future: bool = False,
    ) -> list[Step]:
        """Predict the token after each position.

        Args:
            input_ids: (B, T).
            attention_mask: (B, S), 1 at real tokens and 0 at padding, over the cached tokens too.
            cache: from :meth:`new_cache`; holds the keys and values of the tokens before these.
            documents: (B, T), the number of each token's document in a row of several, each of which is then read as
                if it stood alone; without a cache and padding.
            labels: (B, T), the token after each position; -100 where none is to be predicted.
            future: whether the further tokens of ``n_future_tokens`` are predicted too, given labels.

        Returns:
            The steps to the logits (B, T, V); given labels, to their summed cross-entropy in nats, 0-dim, and with
            ``future`` to that of the further tokens beside it.
        """
        past = cache[0].length if cache else 0
        mask = Mask(past + input_ids.shape[1], True, past, attention_mask, documents)
        shape = input_ids.shape
        embeddings = [self.token_embedding, self.position_embedding]
        values = list(self.value_embeddings)
        tables = [*values, *[None] * (len(self.blocks) - 2 * len(values)), *values]
        output = [self.head, self.future_blocks, self.final_norm] if self.config.n_future_tokens > 1 else [self.head]
        return [
            Step(lambda: self.embed(input_ids, attention_mask, past, documents), embeddings, [shape]),
            *stack(self.blocks, self.config, mask, shape, cache, tables, self.tokens.part(input_ids)),
            Step(lambda x, *_: self.final_norm(x), [self.final_norm], [shape]),
            Step(lambda x: self._predict(x, mask, labels, future), output),
        ]

    def _predict(self, x: Tensor, mask: Mask, labels: Tensor | None, future: bool) -> Tensor | tuple[Tensor, Tensor]:
        """Compute the logits, or given labels the losses, of what :meth:`hidden` gives: see :meth:`steps`."""
        if labels is None:
            return self.tokens.gather(self.head(x))
        loss = self._loss(x, labels)
        if not future:
            return loss
        further = []
        for i, block in enumerate(self.future_blocks, 1):
            ahead = pad(labels, (0, i), value=IGNORED)[:, i:]
            if mask.documents is not None:  # each is read as if it stood alone
                ahead = ahead.masked_fill(pad(mask.documents, (0, i))[:, i:] != mask.documents, IGNORED)
            further.append(self._loss(self.final_norm(block(x, mask)), ahead))
        return loss, torch.stack(further).sum()

    def _loss(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.tokens.sum(self.head(x, labels=self.tokens.part(labels)))
