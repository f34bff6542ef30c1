"""The Transformer (Vaswani et al. 2017): an encoder reads a source, a decoder writes a target.

Shape letters: B batch, S source tokens, T target tokens, C = d_model, V = vocab_size.
"""

import math
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from src.models.network import Network, Step, run, stack
from src.nn import (
    POSITIONS,
    Block,
    BlockConfig,
    Dropout,
    Head,
    KVCache,
    Mask,
    NormPlacement,
    SelfAttention,
    init_outputs,
    make_norm,
    padding_mask,
    position_ids,
)


@dataclass(frozen=True)
class TransformerConfig(BlockConfig):
    """The shape of a Transformer. The defaults are the paper's base model, but for its shared vocabulary.

    Args:
        vocab_size: tokens of the target; a run takes it from its tokenizer.
        source_vocab_size: tokens of the source; that of the target if None.
        max_seq_len: how many positions there are on either side, and so the longest input and output.
        n_encoder_layers: blocks of the encoder.
        n_decoder_layers: blocks of the decoder.
        tie_embeddings: whether source, target and output layer have one matrix (section 3.4); this needs one
            vocabulary for both languages.
        scale_embeddings: whether they are multiplied by sqrt(d_model) (section 3.4).
        embedding_norm: whether the sum of token and position embeddings is normed, on each side (BART).
        positions: of self-attention, as in the other networks; cross-attention has none of its own.
        shared_positions: whether both sides have one table of learned positions; each has its own in BART.
        window: how many tokens each token sees before it, and in the encoder behind it; all if None.
    """

    vocab_size: int = 37000
    source_vocab_size: int | None = None
    max_seq_len: int = 1024
    _: KW_ONLY
    n_encoder_layers: int = 6
    n_decoder_layers: int = 6
    tie_embeddings: bool = False
    scale_embeddings: bool = True
    embedding_norm: bool = False
    d_model: int = 512
    n_heads: int = 8
    activation: str = "relu"
    dropout: float = 0.1
    norm: NormPlacement = "post"
    positions: str = "sinusoidal"
    shared_positions: bool = True
    window: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shared_positions and self.positions != "learned":
            raise ValueError(
                f"shared_positions is false: it goes with positions 'learned' alone, and they are {self.positions!r}"
            )
        for name in ("parallel", "value_residual"):
            if getattr(self, name):
                raise ValueError(f"{name} is true: blocks with cross-attention have none, only those of a GPT or BERT")
        if self.tie_embeddings and self.source_vocab_size not in (None, self.vocab_size):
            raise ValueError(
                f"tie_embeddings needs one vocabulary for both languages: the source has {self.source_vocab_size} "
                f"tokens, the target {self.vocab_size}"
            )


class DecoderCache(NamedTuple):
    """What a decoder block keeps of the tokens before, and of the source."""

    target: KVCache
    source: KVCache


class Transformer(Network):
    """Source ids (B, S) and target ids (B, T) to the logits of the token after each of the target's (B, T, V)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.target_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.source_embedding = (
            self.target_embedding
            if config.tie_embeddings
            else nn.Embedding(config.source_vocab_size or config.vocab_size, config.d_model)
        )
        table, attention = POSITIONS[config.positions]
        self.positions = table(config.max_seq_len, config.d_model) if table else None
        self.target_positions = (
            table(config.max_seq_len, config.d_model) if table and not config.shared_positions else None
        )
        self.source_norm, self.target_norm = (
            make_norm(config) if config.embedding_norm else nn.Identity() for _ in range(2)
        )
        self.dropout = Dropout(config.dropout)
        block = partial(Block, config, attention=attention or SelfAttention)
        self.encoder = nn.ModuleList(block(i) for i in range(config.n_encoder_layers))
        self.decoder = nn.ModuleList(block(i, cross_attention=True) for i in range(config.n_decoder_layers))
        # the last block of a post-norm stack has normed its output already
        self.encoder_norm = make_norm(config) if config.norm == "pre" else nn.Identity()
        self.decoder_norm = make_norm(config) if config.norm == "pre" else nn.Identity()
        self.head = Head(config.d_model, config.vocab_size, bias=False)
        self._init_weights()
        if config.tie_embeddings:
            self.head.weight = self.target_embedding.weight

    def _init_weights(self) -> None:
        """As the paper's code: Glorot's uniform for the layers; what is scaled by sqrt(d_model), or gives logits, less.

        With a deviation of ``d_model^-0.5`` the scaled embeddings and the first logits have a variance of 1.
        """
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "embedding" in name or name.startswith(("head", "positions", "target_positions")):
                nn.init.normal_(parameter, std=self.config.d_model**-0.5)
            elif parameter.dim() == 2:
                nn.init.xavier_uniform_(parameter)
        init_outputs(self)

    def new_cache(self, source_len: int, target_len: int) -> list[DecoderCache]:
        """An empty cache for :meth:`decode`, one entry a block, for sources and targets of at most these lengths."""
        windows = [self.config.span(layer).tokens for layer in range(self.config.n_decoder_layers)]
        return [DecoderCache(KVCache(target_len, window), KVCache(source_len)) for window in windows]

    def _embed(
        self, embedding: nn.Embedding, positions: nn.Module | None, norm: nn.Module, ids: Tensor, past: int = 0
    ) -> Tensor:
        length = past + ids.shape[1]
        if length > self.config.max_seq_len:
            raise ValueError(f"{length} tokens are more than the {self.config.max_seq_len} positions of this model")
        x = embedding(ids)
        if self.config.scale_embeddings:
            x = x * math.sqrt(self.config.d_model)
        if positions is not None:
            x = x + positions(position_ids(ids, offset=past))
        return self.dropout(norm(x))

    def encoder_steps(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> list[Step]:
        """Read the source: the steps to (B, S, C). Arguments as in :meth:`steps`."""
        mask, shape = Mask(input_ids.shape[1], attention_mask=attention_mask), input_ids.shape
        embeddings = (self.source_embedding, self.positions, self.source_norm)
        return [
            Step(lambda: self._embed(*embeddings, input_ids), embeddings, [shape]),
            *stack(self.encoder, self.config, mask, shape),
            Step(self.encoder_norm, [self.encoder_norm], [shape]),
        ]

    def decoder_steps(
        self,
        decoder_input_ids: Tensor,
        source_len: int,
        attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        cache: list[DecoderCache] | None = None,
    ) -> list[Step]:
        """Write the target: the steps from the memory (B, S, C), which they carry along, to (B, T, C)."""
        past = cache[0].target.length if cache else 0
        mask = Mask(past + decoder_input_ids.shape[1], True, past, decoder_attention_mask)
        memory_mask = padding_mask(attention_mask)
        shapes = [decoder_input_ids.shape, (decoder_input_ids.shape[0], source_len)]

        positions = self.positions if self.target_positions is None else self.target_positions
        embeddings = (self.target_embedding, positions, self.target_norm)

        def embed(memory: Tensor) -> tuple[Tensor, Tensor]:
            return self._embed(*embeddings, decoder_input_ids, past), memory

        def through(i: int, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
            target, source = cache[i] if cache else (None, None)
            return self.decoder[i](x, mask, target, memory, memory_mask, source), memory

        return [
            Step(embed, embeddings, shapes),
            *(Step(partial(through, i), [block], shapes) for i, block in enumerate(self.decoder)),
            Step(lambda x, memory: self.decoder_norm(x), [self.decoder_norm], shapes[:1]),
        ]

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Read the source: (B, S) to (B, S, C). Padding, 0 in ``attention_mask`` (B, S), is on the right."""
        memory: Tensor = run(self.encoder_steps(input_ids, attention_mask))
        return memory

    def decode(
        self,
        decoder_input_ids: Tensor,
        memory: Tensor,
        attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        cache: list[DecoderCache] | None = None,
    ) -> Tensor:
        """Compute what the output layer sees: (B, T, C).

        Args:
            decoder_input_ids: (B, T); B may be a multiple of the memory's, whose rows then serve several each.
            memory: (B, S, C) from :meth:`encode`.
            attention_mask: (B, S), of the source.
            decoder_attention_mask: (B, T), 1 at real tokens, for padding that real tokens stand behind; padding on the
                right is behind them all, and no token sees what is behind it.
            cache: from :meth:`new_cache`; holds the keys and values of the tokens before these, and of the source.
        """
        masks = attention_mask, decoder_attention_mask
        hidden: Tensor = run(self.decoder_steps(decoder_input_ids, memory.shape[1], *masks, cache), memory)
        return hidden

    def steps(
        self,
        input_ids: Tensor,
        decoder_input_ids: Tensor,
        attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> list[Step]:
        """Predict the token after each of the target's.

        Args:
            input_ids: (B, S), the source, padded on the right.
            decoder_input_ids: (B, T), the target with a start token before it and without its last token.
            attention_mask: (B, S), 1 at real tokens of the source and 0 at padding; every row has a real token.
            decoder_attention_mask: (B, T), of the target: see :meth:`decode`.
            labels: (B, T), the target with its last token; -100 where none is to be predicted.
            label_smoothing: fraction of each label's probability that is spread over the vocabulary.

        Returns:
            The steps to the logits (B, T, V); given labels, to their summed cross-entropy in nats, 0-dim.
        """
        masks = attention_mask, decoder_attention_mask
        return [
            *self.encoder_steps(input_ids, attention_mask),
            *self.decoder_steps(decoder_input_ids, input_ids.shape[1], *masks),
            Step(lambda x: self.head(x, labels=labels, label_smoothing=label_smoothing), [self.head]),
        ]
